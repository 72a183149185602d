"""A run killed inside its steps and continued is the run that was never killed, bit for bit.

The step holds a callback, so every process compiles it again: without most optimisations. With them `scripts/kill_campaign.py`
does the same.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from compiled import older_generator

from jaxft.cli.config import read_config
from jaxft.config import PLACEMENT, to_json
from jaxft.errors import JaxftError
from jaxft.run import train
from jaxft.workdir import open_workdir

STEPS = 6
# A batch that is no power of two, and a log line of four steps: the second kill below leaves a checkpoint inside one.
SETTINGS = (
    "--config.loss.name=kill_loss:loss",
    "--config.input.batch_size=24",
    "--config.train.checkpoint_every=1 steps",
    "--config.train.log_every=4 steps",
    "--config.phases.phase2.optim.name=adamw",  # the moments of the head go on
)


def _start(recipe, workdir, cache, *more, **environment):
    command = [sys.executable, "-m", "jaxft", "train", f"--config={recipe}", f"--workdir={workdir}", *more]
    variables = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path(__file__).parent),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        **environment,
    }
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _wait_for_checkpoint(process, workdir):
    """Until the first one is complete: the run is in the middle of its steps."""
    while not (workdir / "checkpoints" / "1").exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)


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
def unbroken(made_once, recipe):
    """The reference run, in a process of its own; its compiled steps are cached for the others."""

    def make(base):
        process = _start(recipe, base / "run", base / "cache", *SETTINGS)
        output, _ = process.communicate()
        assert process.returncode == 0, output

    base = made_once("unbroken", make)
    return base / "run", base / "cache", _everything(base / "run")


# The loss runs once a microbatch, twice a step: killed inside the first step, then inside the third after a start, when the
# save of the first is surely complete. The long row kills every step once.
@pytest.mark.parametrize("calls", ["15", pytest.param("13" + "5" * (STEPS - 2), marks=pytest.mark.slow)])
def test_a_run_killed_inside_its_steps_and_continued_is_bit_equal(unbroken, recipe, tmp_path, calls):
    _, cache, expected = unbroken
    workdir = tmp_path / "run"
    for after in calls:
        process = _start(recipe, workdir, cache, *SETTINGS, KILL_AFTER=after)
        output, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL, output
        assert (workdir / ".lock").exists()  # nobody holds it: the next start does not mind
    process = _start(recipe, workdir, cache, *SETTINGS)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "resuming at step" in output
    _assert_same(_everything(workdir), expected)


@pytest.mark.parametrize(
    "more",
    [
        ("--config.parallel.mesh=2x2x1", "--config.parallel.frozen=replicate"),
        pytest.param((), marks=pytest.mark.slow),
    ],
)
def test_a_checkpoint_of_one_device_continues_on_four(unbroken, recipe, tmp_path, more):
    source, cache, (_, expected, _) = unbroken
    workdir = tmp_path / "run"
    shutil.copytree(source, workdir)
    shutil.rmtree(workdir / "checkpoints" / str(STEPS))
    (start,) = (int(folder.name) for folder in (workdir / "checkpoints").iterdir())
    assert 0 < start < STEPS
    variables = {"JAX_NUM_CPU_DEVICES": "4", "SAY_DEVICES": "1", **older_generator()}
    process = _start(recipe, workdir, cache, *SETTINGS, *more, **variables)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert f"resuming at step {start}" in output
    assert "logits on 4" in output
    _, found, _ = _everything(workdir)
    differ, total = 0, 0
    for name, value in expected.items():
        if np.issubdtype(value.dtype, np.floating):
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-2, err_msg=name)
            differ, total = differ + (~np.isclose(found[name], value, rtol=1e-5, atol=1e-5)).sum(), total + value.size
    # AdamW makes a whole step of a gradient near zero, whose sign may be a matter of rounding.
    assert differ <= 1e-3 * total


def test_a_damaged_newest_checkpoint_is_said_and_the_run_goes_on_from_the_one_before_bit_equal(unbroken, recipe, tmp_path):
    source, cache, expected = unbroken
    workdir = tmp_path / "run"
    shutil.copytree(source, workdir)
    file = max((workdir / "checkpoints" / str(STEPS) / "params").rglob("d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    process = _start(recipe, workdir, cache, *SETTINGS)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    aside = workdir / "checkpoints" / f"damaged-{STEPS}"
    name = file.relative_to(workdir / "checkpoints" / str(STEPS))
    assert f"checkpoint {STEPS} is damaged ({name} is not what was written); it was moved to {aside}" in output
    assert (aside / name).read_bytes() == content
    (start,) = {int(line.split()[-1]) for line in output.splitlines() if line.startswith("resuming at step")}
    assert 0 < start < STEPS
    _assert_same(_everything(workdir), expected)


def test_where_no_checkpoint_is_whole_the_run_ends_with_a_line_and_nothing_is_trained(unbroken, recipe, tmp_path):
    source, cache, _ = unbroken
    workdir = tmp_path / "run"
    shutil.copytree(source, workdir)
    log = (workdir / "metrics.jsonl").read_bytes()
    for folder in (workdir / "checkpoints").iterdir():
        (folder / "MANIFEST").write_bytes((folder / "MANIFEST").read_bytes()[:-9])
    process = _start(recipe, workdir, cache, *SETTINGS)
    output, _ = process.communicate()
    assert process.returncode == 2, output
    last = output.splitlines()[-1]
    assert last == f"jaxft: no checkpoint in {workdir / 'checkpoints'} is whole: start anew in another --workdir"
    assert (workdir / "metrics.jsonl").read_bytes() == log


def test_a_finished_run_that_is_started_again_trains_nothing_and_reports_the_same(unbroken, recipe, tmp_path):
    source, cache, _ = unbroken
    workdir = tmp_path / "run"
    shutil.copytree(source, workdir)
    before = {name: (workdir / name).read_bytes() for name in ("report.json", "predictions.csv")}
    log = (workdir / "metrics.jsonl").read_text().splitlines()
    saved = {path: path.stat().st_mtime_ns for path in (workdir / "checkpoints").rglob("*") if path.is_file()}
    process = _start(recipe, workdir, cache, *SETTINGS)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert f"step {STEPS}/" not in output
    assert {name: (workdir / name).read_bytes() for name in before} == before
    assert list(dict.fromkeys((workdir / "metrics.jsonl").read_text().splitlines())) == log
    assert {path: path.stat().st_mtime_ns for path in (workdir / "checkpoints").rglob("*") if path.is_file()} == saved


def test_a_second_run_in_the_workdir_is_refused_and_the_first_undisturbed_saves_at_ctrl_c_and_goes_on_bit_equal(
    unbroken, recipe, tmp_path
):
    _, cache, expected = unbroken
    workdir = tmp_path / "run"
    first = _start(recipe, workdir, cache, *SETTINGS)
    _wait_for_checkpoint(first, workdir)
    first.send_signal(signal.SIGSTOP)  # it is in the middle of its steps for as long as it takes
    second = _start(recipe, workdir, cache, *SETTINGS)
    output, _ = second.communicate()
    first.send_signal(signal.SIGINT)
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 2, output
    assert f"jaxft: another run is writing to {workdir}: wait for its end, or give another --workdir" in output
    output, _ = first.communicate()
    assert first.returncode == 75, output
    assert "; everything is saved: the same command goes on from there" in output
    again = _start(recipe, workdir, cache, *SETTINGS)
    output, _ = again.communicate()
    assert again.returncode == 0, output
    _assert_same(_everything(workdir), expected)


def test_another_config_is_refused_but_for_where_things_lie(unbroken, recipe, tmp_path):
    source, _, _ = unbroken
    workdir = tmp_path / "run"
    shutil.copytree(source, workdir)
    before = (workdir / "config.json").read_bytes()
    for change, said in (
        ("optim.weight_decay=0.5", "config.optim.weight_decay was 0.01, is 0.5"),
        ("parallel.batch_norm=replica", "config.parallel.batch_norm was 'global', is 'replica'"),
        ("train.nonfinite=skip", "config.train.nonfinite was 'stop', is 'skip'"),
    ):
        with pytest.raises(JaxftError) as raised:
            train(read_config(str(recipe), [*SETTINGS, f"--config.{change}"]), workdir)
        assert str(raised.value) == f"{workdir} holds a run of another config: {said}; give another --workdir"
    assert (workdir / "config.json").read_bytes() == before
    moved = ("mesh=4x2x1", "rules=head/**:replicate", "frozen=replicate", "lost_after=5.0")
    assert {f"config.parallel.{key.split('=')[0]}" for key in moved} == set(PLACEMENT)
    config = read_config(str(recipe), [*SETTINGS, *(f"--config.parallel.{key}" for key in moved)])
    with open_workdir(workdir, config) as folder:
        assert folder.manifest == workdir / "splits.json"


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
        train(config, workdir)
