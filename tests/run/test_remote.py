"""A run in a bucket: broken off and continued it is the run on a disk; a bucket that is away ends nothing."""

import functools
import json
import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from compiled import older_generator

import jaxft
from jaxft import inputs
from jaxft.cli.config import read_config
from jaxft.errors import JaxftError
from jaxft.manifest import find_damage
from jaxft.paths import list_files, open_path
from jaxft.run import train
from jaxft.workdir import open_workdir

STEPS = 6
SETTINGS = (
    f"--config.phases.phase1.length={STEPS} steps",
    "--config.phases.phase2.length=0 steps",
    "--config.train.checkpoint_every=1 steps",
    "--config.train.log_every=1 steps",
    "--config.train.accum_steps=1",
)
WORKDIR = "gs://bucket/runs/one"

pytestmark = pytest.mark.usefixtures("one_device", "quick_compiles")


@pytest.fixture
def at_step(monkeypatch):
    """Actions by step: each is done once, before the batch of that step is given."""
    plain, actions = inputs.train_batches, {}

    @functools.wraps(plain)
    def batches(source, preprocessing, *, start_step=0, **options):
        for step, batch in enumerate(plain(source, preprocessing, start_step=start_step, **options), start_step + 1):
            actions.pop(step, lambda: None)()
            yield batch

    monkeypatch.setattr(inputs, "train_batches", batches)
    return actions


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory, recipe):
    """The reference run, on a disk."""
    workdir = tmp_path_factory.mktemp("disk") / "run"
    train(read_config(str(recipe), SETTINGS), workdir)
    return workdir


def _leaves(tuned):
    return [np.asarray(leaf) for leaf in jax.tree.leaves((tuned.params, tuned.model_state))]


def _assert_same_end(bucket, on_disk):
    for name in (
        "metrics.jsonl",
        "config.json",
        "splits.json",
        "report.md",
        "report.json",
        "predictions.csv",
        "samples.png",
    ):
        assert bucket.read(f"runs/one/{name}") == (on_disk / name).read_bytes(), name
    for step in (None, STEPS):
        local, remote = jaxft.load_run(on_disk, step=step), jaxft.load_run(WORKDIR, step=step)
        assert local.step == remote.step
        for one, other in zip(_leaves(local), _leaves(remote), strict=True):
            np.testing.assert_array_equal(one, other)


def _steps(bucket):
    return sorted({int(name.split("/")[0]) for name in bucket.names("runs/one/checkpoints/") if name.split("/")[0].isdigit()})


class _Crash(Exception):
    pass


@pytest.mark.slow
def test_a_run_in_a_bucket_that_crashes_goes_on_and_loses_the_bucket_for_a_while_ends_as_one_on_a_disk(
    bucket, recipe, on_disk, at_step, capsys
):
    config = read_config(str(recipe), SETTINGS)

    def leave():
        bucket.fault = lambda method, name: 403  # as where the credentials ran out

    def come_back():
        bucket.fault = lambda method, name: 0

    def crash():
        leave()  # nothing is written on the way out, as after a kill
        raise _Crash

    at_step[3] = crash
    with pytest.raises(_Crash):
        train(config, WORKDIR)
    come_back()
    bucket.write("runs/one/checkpoints/2/params/half", b"x")  # half a save, or damage, whichever step 2 had come to
    at_step[5], at_step[6] = leave, come_back
    capsys.readouterr()
    assert train(config, WORKDIR).status == "finished"
    said = capsys.readouterr().out
    assert f"taking over {WORKDIR} from process {os.getpid()} of " in said
    assert "resuming at step 1\n" in said
    warnings = [line for line in said.splitlines() if line.startswith("WARNING: ")]
    assert [line.split(" (")[0].split(": the bucket")[0] for line in warnings] == [
        f"WARNING: {WORKDIR}/metrics.jsonl cannot be written",
        f"WARNING: checkpoint 4 was not saved in {WORKDIR}/checkpoints",
        f"WARNING: checkpoint 5 was not saved in {WORKDIR}/checkpoints",
    ]
    assert warnings[-1].endswith("Training goes on without that checkpoint; the newest is step 3")
    _assert_same_end(bucket, on_disk)
    best = jaxft.load_run(WORKDIR).step
    assert _steps(bucket) == sorted({best, STEPS})  # nothing is left of the others
    assert json.loads(bucket.read("runs/one/.lock"))["ended"]


def test_a_folder_that_is_taken_over_is_said_and_one_of_another_config_is_not_taken(bucket, recipe):
    config = read_config(str(recipe), SETTINGS)
    with open_workdir(open_path(WORKDIR), config) as folder:
        folder.lock()
        folder.check_ours()
        bucket.write("runs/one/.lock", b'{"run": "the newer one"}\n')
        assert not folder.is_ours()
        with pytest.raises(JaxftError, match=f"^another run was started in {WORKDIR} and has taken it over: this one ends"):
            folder.check_ours()
    bucket.write("runs/one/config.json", b'{"seed": 5}')
    with pytest.raises(JaxftError, match="holds a run of another config"), open_workdir(open_path(WORKDIR), config):
        pass
    assert bucket.read("runs/one/.lock") == b'{"run": "the newer one"}\n'


@pytest.mark.slow
def test_the_run_that_is_taken_over_ends_and_leaves_the_other_alone(bucket, recipe, at_step):
    config = read_config(str(recipe), SETTINGS)

    def take_over():
        bucket.write("runs/one/.lock", b'{"run": "the newer one"}\n')
        bucket.write("runs/one/metrics.jsonl", b"of the newer one\n")

    at_step[2] = take_over
    with pytest.raises(
        JaxftError, match="^another run was started in gs://bucket/runs/one and has taken it over: this one ends"
    ):
        train(config, WORKDIR)
    assert bucket.read("runs/one/metrics.jsonl") == b"of the newer one\n"
    assert bucket.read("runs/one/.lock") == b'{"run": "the newer one"}\n'
    assert _steps(bucket) == []


@pytest.mark.slow
def test_two_processes_write_their_parts_into_a_bucket_and_one_goes_on_from_them(bucket, recipe):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jaxft", "train", f"--config={recipe}", f"--workdir={WORKDIR}", *SETTINGS]
    environment = {**os.environ, **older_generator(), "JAX_NUM_CPU_DEVICES": "1"}
    several = {**environment, "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2"}
    started = [
        subprocess.Popen(
            [*command, "--config.parallel.mesh=fsdp=2"], env={**several, "JAX_PROCESS_ID": str(index)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for index in range(2)
    ]  # fmt: skip
    outputs = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], outputs
    newest = open_path(WORKDIR) / "checkpoints" / str(STEPS)
    assert find_damage(newest) == ""
    assert {name.split("/")[1] for name in list_files(newest) if name.startswith("params/ocdbt.process_")} == {
        "ocdbt.process_0",
        "ocdbt.process_1",
    }
    logged = bucket.read("runs/one/metrics.jsonl").splitlines()
    assert [json.loads(line)["step"] for line in logged if b'"train"' in line] == list(range(1, STEPS + 1))
    done = subprocess.run([*command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"resuming at step {STEPS}" in done.stdout
