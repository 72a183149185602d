"""Eight simulated CPU devices for every test; what is not sharded runs on the first. And a finished run to look at."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAXFT_HEAP", "off")  # one process runs many networks: it need not keep the memory of all
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # One cache for this session, its workers and the commands it runs; never the user's.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jaxft-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
# Test files are imported by path; what they share is imported by name from here.
_TESTS = Path(__file__).parent
sys.path[:0] = [str(_TESTS), str(_TESTS / "models"), str(_TESTS / "data")]

import jax  # noqa: E402
import pytest  # noqa: E402
from bucket import Bucket  # noqa: E402
from compiled import choose_generator  # noqa: E402
from tiny_run import draw_folder, write_recipe  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
choose_generator()


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of three class folders, ten small pictures each."""
    return draw_folder(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="session")
def recipe(tmp_path_factory, photos):
    return write_recipe(tmp_path_factory.mktemp("recipe") / "tiny.py", photos)


@pytest.fixture(scope="module")
def quick_compiles():
    """For tests whose programs run once: they are compiled without most optimisations."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="session")
def served_bucket():
    """One for all tests of a process: TensorStore keeps its address."""
    with Bucket("bucket") as bucket:
        os.environ.update(bucket.variables)
        yield bucket


@pytest.fixture
def bucket(served_bucket):
    """The bucket `gs://bucket`, empty, on the loopback; commands find it too."""
    served_bucket.reset()
    yield served_bucket
    served_bucket.reset()


#: Two steps of the head: quick to compile.
FINISHED = ("--config.phases.phase1.length=2 steps", "--config.phases.phase2.length=0 steps")


@pytest.fixture(scope="session")
def finished(tmp_path_factory, recipe):
    """The workdir of a finished run of `recipe` with the overrides `FINISHED`."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    command = [sys.executable, "-m", "jaxft", "train", f"--config={recipe}", f"--workdir={workdir}", *FINISHED]
    subprocess.run(command, check=True, env={**os.environ, "JAX_NUM_CPU_DEVICES": "1"})
    return workdir, FINISHED


def pytest_collection_modifyitems(items):
    """The kill and resume runs, the longest, begin first: with two workers nobody waits for them at the end."""
    items.sort(key=lambda item: "tests/run/" not in item.nodeid)
