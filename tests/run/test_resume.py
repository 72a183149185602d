"""A run killed inside its steps and continued is the run that was never killed, bit for bit."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxft.cli.config import read_config
from jaxft.config import to_json
from jaxft.errors import JaxftError
from jaxft.run import train

STEPS = 6
SETTINGS = ("--config.loss.name=kill_loss:loss", "--config.train.checkpoint_every=1 steps")


def _start(recipe, workdir, cache, *more, **environment):
    command = [sys.executable, "-m", "jaxft", "train", f"--config={recipe}", f"--workdir={workdir}", *more]
    variables = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path(__file__).parent),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        **environment,
    }
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _everything(workdir):
    """All arrays of the newest checkpoint by path, and the bytes of the metric log."""
    folder = workdir / "checkpoints"
    newest = max(int(path.name) for path in folder.iterdir() if path.name.isdigit())
    arrays = {}
    for item in ("clock", "params", "model_state", "opt_state", "ema"):
        with ocp.PyTreeCheckpointer() as reader:
            restored = reader.restore((folder / str(newest) / item).absolute())
        for path, leaf in jax.tree_util.tree_flatten_with_path(restored)[0]:
            arrays[item + jax.tree_util.keystr(path)] = np.asarray(leaf)
    return newest, arrays, (workdir / "metrics.jsonl").read_bytes()


def _assert_same(one, other):
    assert one[0] == other[0]
    assert one[1].keys() == other[1].keys()
    for name, value in one[1].items():
        np.testing.assert_array_equal(value, other[1][name], err_msg=name)
    assert one[2] == other[2]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, recipe):
    """The reference run, in a process of its own; its compiled steps are cached for the others."""
    base = tmp_path_factory.mktemp("unbroken")
    process = _start(recipe, base / "run", base / "cache", *SETTINGS)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return base / "run", base / "cache", _everything(base / "run")


# The loss runs once a microbatch, twice a step: killed inside the first step, then inside the third after a start, when the
# save of the first is surely complete. The long row kills every step once.
@pytest.mark.parametrize("calls", ["15", pytest.param("13" + "5" * (STEPS - 2), marks=pytest.mark.slow)])
def test_a_run_killed_inside_its_steps_and_continued_is_bit_equal(unbroken, recipe, tmp_path, calls):
    _, cache, expected = unbroken
    workdir = tmp_path / "run"
    for after in calls:
        process = _start(recipe, workdir, cache, "--resume", *SETTINGS, KILL_AFTER=after)
        output, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL, output
    process = _start(recipe, workdir, cache, "--resume", *SETTINGS)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "resuming at step" in output
    _assert_same(_everything(workdir), expected)


def test_a_batch_that_is_no_power_of_two_resumes_inside_a_log_window_bit_equal(recipe, tmp_path, unbroken):
    _, cache, _ = unbroken
    more = (
        "--config.input.batch_size=24",
        "--config.phases.phase1.length=5 steps",
        "--config.phases.phase2.length=0 steps",
        "--config.train.log_every=4 steps",
        "--config.train.eval_every=5 steps",
    )
    for name, after, code in (("whole", None, 0), ("killed", "7", -signal.SIGKILL), ("killed", None, 0)):
        kill = {} if after is None else {"KILL_AFTER": after}
        process = _start(recipe, tmp_path / name, cache, "--resume", *SETTINGS, *more, **kill)
        output, _ = process.communicate()
        assert process.returncode == code, output
    assert "resuming at step" in output
    _assert_same(_everything(tmp_path / "killed"), _everything(tmp_path / "whole"))


def test_ctrl_c_saves_and_a_resumed_run_is_bit_equal(unbroken, recipe, tmp_path):
    _, cache, expected = unbroken
    workdir = tmp_path / "run"
    process = _start(recipe, workdir, cache, *SETTINGS)
    for line in process.stdout:
        if line.startswith("step 2/"):
            process.send_signal(signal.SIGINT)
            break
    output = process.stdout.read()
    assert process.wait() == 75, output
    assert "go on with --resume" in output
    process = _start(recipe, workdir, cache, "--resume", *SETTINGS)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    _assert_same(_everything(workdir), expected)


def test_a_checkpoint_of_one_device_continues_on_eight(unbroken, recipe, tmp_path):
    source, cache, (_, expected, _) = unbroken
    workdir = tmp_path / "run"
    shutil.copytree(source, workdir)
    shutil.rmtree(workdir / "checkpoints" / str(STEPS))
    (start,) = (int(folder.name) for folder in (workdir / "checkpoints").iterdir())
    assert 0 < start < STEPS
    process = _start(recipe, workdir, cache, "--resume", *SETTINGS, JAX_NUM_CPU_DEVICES="8", SAY_DEVICES="1")
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert f"resuming at step {start}" in output
    assert "logits on 8" in output
    _, found, _ = _everything(workdir)
    for name, value in expected.items():
        if np.issubdtype(value.dtype, np.floating):
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


def test_resume_refuses_changed_data(unbroken, recipe, photos, tmp_path):
    source, _, _ = unbroken
    workdir = tmp_path / "run"
    shutil.copytree(source, workdir)
    moved = tmp_path / "photos"
    shutil.copytree(photos, moved)
    extra = next((moved / "circle").iterdir())
    shutil.copy(extra, extra.with_name("extra.png"))
    config = read_config(str(recipe), [*SETTINGS, f"--config.data.source=folder:{moved}"])
    (workdir / "config.json").write_text(to_json(config))
    with pytest.raises(JaxftError, match="extra.png|data changed"):
        train(config, workdir, resume=True)
