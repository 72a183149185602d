"""Eight simulated CPU devices for every test; what is not sharded runs on the first. And a finished run to look at."""

import atexit
import gc
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
sys.path[:0] = [str(_TESTS), str(_TESTS / "models"), str(_TESTS / "data"), str(_TESTS / "augment")]

import jax  # noqa: E402
import pytest  # noqa: E402
from bucket import Bucket  # noqa: E402
from compiled import choose_generator  # noqa: E402
from filelock import FileLock  # noqa: E402
from small_run import write_small_recipe  # noqa: E402
from tiny_run import draw_folder, write_recipe  # noqa: E402

# JAX's caches are some million objects that stay: looked through every 700 allocations, they are 6 % of the time.
gc.set_threshold(10_000, 10, 10)
jax.config.update("jax_num_cpu_devices", 8)
choose_generator()


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Gives a folder that all workers share: the first that asks for a name makes what is in it, the others wait."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def made(name, make):
        folder, whole = shared / name, shared / f"{name}.whole"
        with FileLock(shared / f"{name}.lock"):
            if not whole.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of one that failed
                folder.mkdir()
                make(folder)
                whole.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def photos(made_once):
    """A folder of three class folders, ten small pictures each."""
    return made_once("data", lambda folder: draw_folder(folder / "photos")) / "photos"


@pytest.fixture(scope="session")
def recipe(made_once, photos):
    return made_once("recipe", lambda folder: write_recipe(folder / "tiny.py", photos)) / "tiny.py"


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


@pytest.fixture(scope="module")
def one_device():
    """For runs in this process to which eight simulated devices, on a few cores, are nothing but slow."""
    from jaxft import run

    mesh = run.make_mesh
    run.make_mesh = lambda layout: mesh(layout, jax.devices()[:1])
    yield
    run.make_mesh = mesh


#: Two steps of the head: quick to compile.
FINISHED = ("--config.phases.phase1.length=2 steps", "--config.phases.phase2.length=0 steps")


@pytest.fixture(scope="session")
def finished(made_once, recipe):
    """The workdir of a finished run of `recipe` with the overrides `FINISHED`."""

    def make(folder):
        command = [sys.executable, "-m", "jaxft", "train", f"--config={recipe}", f"--workdir={folder / 'run'}", *FINISHED]
        quick = {"JAX_NUM_CPU_DEVICES": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
        subprocess.run(command, check=True, env={**os.environ, **quick})

    return made_once("finished", make) / "run", FINISHED


@pytest.fixture(scope="session")
def small(made_once, photos):
    """The recipe of `small_run`, of a network that compiles in a second."""
    return made_once("small", lambda folder: write_small_recipe(folder / "small.py", photos)) / "small.py"


@pytest.fixture(scope="session")
def small_run(made_once, small):
    """The workdir of a finished run of it that learnt something."""

    def make(folder):
        from jaxft.cli.config import read_config
        from jaxft.run import train

        config = read_config(str(small))
        config.phases.phase1.length, config.phases.phase1.lr = "20 steps", 0.1
        config.train.eval_every = "20 steps"
        train(config, folder / "run", test=False)

    return made_once("small_run", make) / "run"


@pytest.fixture(scope="session")
def lora_run(made_once, recipe, finished):
    """The workdir of a finished run that trained LoRA, the head and the norms of the last stage of `finished`'s network."""

    def make(folder):
        from jaxft.cli.config import read_config
        from jaxft.config import phase
        from jaxft.export import export_run
        from jaxft.run import train

        config = read_config(str(recipe))
        config.model.pretrained = str(folder / "base.safetensors")
        export_run(finished[0], config.model.pretrained, to="jaxft")
        config.phases = {"phase1": phase(train="lora+head+layer4/*/bn1", length="3 steps", lr=1e-2)}
        config.adapter.options = {"rank": {"layer3": 2, "layer4": 3}}
        train(config, folder / "run")

    return made_once("lora", make) / "run"


def pytest_collection_modifyitems(items):
    """The kill and resume runs, the longest, begin first: with two workers nobody waits for them at the end."""
    items.sort(key=lambda item: "tests/run/" not in item.nodeid)
