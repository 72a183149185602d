"""Compiled functions are kept on disk, and one that is compiled twice is told with its cause."""

import os
import stat
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxft.compiling import CACHE_BYTES, Compiles, keep_compiled
from jaxft.parallel import make_mesh, put_batch, replicate

OPTIONS = ("jax_compilation_cache_dir", "jax_compilation_cache_max_size")


@pytest.fixture
def compiles():
    made = Compiles()
    yield made
    made.close()


@pytest.fixture
def user(monkeypatch, tmp_path):
    """A user with an own cache folder who has set nothing."""
    before = {name: getattr(jax.config, name) for name in OPTIONS}
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("JAXFT_CACHE", str(tmp_path / "cache"))
    jax.config.update("jax_compilation_cache_dir", None)
    yield tmp_path / "cache" / "compiled"
    for name, value in before.items():
        jax.config.update(name, value)


def _step():
    def step(state, batch):
        return {"sum": state["sum"] + batch["image"].sum() + batch["label"].sum()}

    return jax.jit(step, donate_argnums=0)


def _batch(size=8, label=np.int32):
    return {"image": np.ones((size, 2), np.float32), "label": np.ones(size, label)}


def test_the_first_compilation_is_counted_and_nothing_is_told(compiles):
    step = compiles.watch(_step(), "the step")
    state = {"sum": jnp.zeros(())}
    for _ in range(3):
        state = step(state, _batch())
    assert state["sum"] == 3 * (16 + 8)
    assert compiles.again() == []
    found = compiles.read()
    assert found["compiles"] == 1
    assert found["compile_seconds"] > 0
    assert compiles.read() == {"compiles": 0, "compile_seconds": 0.0}


@pytest.mark.parametrize(
    ("other", "cause"),
    [
        (_batch(label=np.uint8), "batch/label was int32[8], is uint8[8]"),
        (_batch(size=6), "batch/image was float32[8,2], is float32[6,2]; batch/label was int32[8], is int32[6]"),
        ({**_batch(), "mask": np.ones(8)}, "batch/mask is new"),
    ],
)
def test_a_second_compilation_names_the_argument_that_changed(compiles, other, cause):
    step = compiles.watch(_step(), "the step")
    state = step({"sum": jnp.zeros(())}, _batch())
    state = step(state, other)
    state = step(state, other)
    (found,) = compiles.again()
    assert str(found) == f"the step was compiled again in {found.seconds:.1f} s: {cause}"
    assert compiles.read()["compiles"] == 2
    step(state, _batch())  # both are still there
    assert compiles.again() == []


def test_a_batch_on_other_devices_is_told_by_its_place(compiles):
    mesh = make_mesh()
    step = compiles.watch(_step(), "the step")
    state = step(replicate({"sum": jnp.zeros(())}, mesh), put_batch(_batch(), mesh))
    step(state, replicate(_batch(), mesh))
    (found,) = compiles.again()
    assert [change.split(" ")[:3] for change in found.changes] == [["batch/image", "was", "on"], ["batch/label", "was", "on"]]


def test_a_number_without_a_type_of_its_own_is_told(compiles):
    step = compiles.watch(jax.jit(lambda x: x + 1), "it")
    step(jnp.float32(1))
    step(1.0)
    (found,) = compiles.again()
    assert found.changes == ("x was float32[], is ~float32[]",)


def test_what_compiles_outside_of_a_watched_function_is_not_its_fault(compiles):
    entered, compiled = threading.Event(), threading.Event()

    def other():
        entered.wait(10)
        jax.jit(lambda x: x * 3)(jnp.ones(3))
        compiled.set()

    thread = threading.Thread(target=other)
    thread.start()

    def function(x):
        entered.set()
        assert compiled.wait(10)
        return x

    compiles.watch(function, "no jit")(1)
    jax.jit(lambda x: x * 5)(jnp.ones(3))
    thread.join()
    assert compiles.read()["compiles"] == 0


def test_a_closed_watch_listens_no_more():
    compiles = Compiles()
    step = compiles.watch(_step(), "the step")
    compiles.close()
    step({"sum": jnp.zeros(())}, _batch())
    assert compiles.read()["compiles"] == 0


def test_compiled_functions_are_kept_in_the_users_cache_for_him_alone(user):
    assert keep_compiled() == ""
    assert jax.config.jax_compilation_cache_dir == str(user)
    assert jax.config.jax_compilation_cache_max_size == CACHE_BYTES
    assert stat.S_IMODE(user.stat().st_mode) == 0o700
    assert keep_compiled() == ""


def test_what_the_user_set_is_left_alone(user, monkeypatch):
    jax.config.update("jax_compilation_cache_dir", "/elsewhere")
    assert keep_compiled() == ""
    assert jax.config.jax_compilation_cache_dir == "/elsewhere"
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        assert keep_compiled() == ""
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
        assert keep_compiled() == ""
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert keep_compiled() == ""
    assert jax.config.jax_compilation_cache_dir is None
    assert not user.exists()


def test_a_folder_that_cannot_be_made_is_one_line_and_no_failure(user):
    user.parent.write_text("a file where the folder should be")
    line = keep_compiled()
    assert line.startswith("compiled steps are not kept for the next run (")
    assert str(user.parent) in line
    assert "\n" not in line
    assert jax.config.jax_compilation_cache_dir is None


def test_an_entry_a_killed_process_left_half_written_is_removed(user):
    user.mkdir(parents=True)
    for name in ("whole-cache", "whole-atime", "torn-cache", "young-cache"):
        (user / name).write_bytes(b"8 bytes.")
    for name in ("whole-cache", "torn-cache"):
        os.utime(user / name, (time.time() - 3600,) * 2)
    assert keep_compiled() == ""
    assert sorted(file.name for file in user.iterdir()) == ["whole-atime", "whole-cache", "young-cache"]


CHILD = """
import jax
from jax import monitoring
from jaxft.compiling import keep_compiled
events = []
monitoring.register_event_listener(lambda event, **more: events.append(event.rsplit("/", 1)[1]))
assert keep_compiled() == ""
print(jax.jit(lambda x: (x @ x).sum())(jax.numpy.ones((8, 8))), "cache_hits" in events)
"""


def test_the_next_process_finds_what_was_compiled(tmp_path):
    env = {key: value for key, value in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"}
    env |= {"JAXFT_CACHE": str(tmp_path), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "-W", "error", "-c", CHILD]
    said = [subprocess.run(command, env=env, capture_output=True, text=True, check=True) for _ in range(2)]
    assert [run.stdout for run in said] == ["512.0 False\n", "512.0 True\n"]
    assert said[1].stderr == ""


def test_deterministic_adds_its_flag_once_and_xla_knows_it():
    code = """
import os
os.environ["XLA_FLAGS"] = "--xla_cpu_enable_fast_math=false"
from jaxft.compiling import deterministic
said = deterministic(), deterministic()
assert os.environ["XLA_FLAGS"] == "--xla_cpu_enable_fast_math=false --xla_gpu_deterministic_ops=true", os.environ["XLA_FLAGS"]
import jax
print(said[0] == said[1], said[0].startswith("deterministic: "), jax.jit(lambda x: x + 1)(1))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True True 2\n"
