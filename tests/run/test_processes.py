"""Real processes on the loopback: they train, evaluate, save, are stopped and killed, and go on in other numbers."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from compiled import older_generator

from jaxft.parallel import LOST

SETTINGS = (
    "--config.model.drop_path=0.0",  # drawn for a whole batch: rounding alone would make another stage of ReLUs
    "--config.phases.phase2.length=38 steps",
    "--config.phases.phase2.lr=1e-3",
    "--config.train.eval_every=12 steps",
    "--config.train.checkpoint_every=4 steps",
    "--config.train.log_every=1 steps",
    "--config.parallel.lost_after=4",
)
STEPS = 40


class Job:
    """Processes of one program, started with JAX's variables; each one's output is read line by line."""

    def __init__(self, recipe, workdir, cache, processes, devices, *more, last=()):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "jaxft", "train", f"--config={recipe}", f"--workdir={workdir}", *SETTINGS, *more]
        self.processes, self.lines, self._threads = [], [[] for _ in range(processes)], []
        for index in range(processes):
            variables = {
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "JAX_NUM_CPU_DEVICES": str(devices),
                "JAX_COMPILATION_CACHE_DIR": str(cache),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
                **older_generator(),
            }
            if processes > 1:
                variables |= {
                    "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
                    "JAX_NUM_PROCESSES": str(processes),
                    "JAX_PROCESS_ID": str(index),
                }
            own = [*command, *(last if index == processes - 1 else ())]
            process = subprocess.Popen(own, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            self.processes.append(process)
            self._threads.append(threading.Thread(target=self._read, args=(process, self.lines[index]), daemon=True))
            self._threads[-1].start()

    @staticmethod
    def _read(process, lines):
        lines.extend(line for line in process.stdout)

    def wait_for_step(self, step):
        end = time.monotonic() + 240
        while time.monotonic() < end:
            if any(line.startswith(f"step {step}/") for line in self.lines[0]):
                return
            if any(process.poll() is not None for process in self.processes):
                break
            time.sleep(0.02)
        raise AssertionError(self.text(0))

    def text(self, index):
        return "".join(self.lines[index])

    def ends(self, *, but=()):
        """Exit codes of all but some, in order."""
        codes = [process.wait(240) for index, process in enumerate(self.processes) if index not in but]
        for index, thread in enumerate(self._threads):
            if index not in but:
                thread.join(60)
        return codes

    def close(self):
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()


@pytest.fixture
def start(recipe, tmp_path):
    jobs = []

    def started(processes, devices, *more, workdir="run", **options):
        jobs.append(Job(recipe, tmp_path / workdir, tmp_path.parent / "cache", processes, devices, *more, **options))
        return jobs[-1]

    yield started
    for job in jobs:
        job.close()


def arrays(workdir, step):
    found = {}
    for item in ("params", "model_state", "opt_state", "ema"):
        with ocp.PyTreeCheckpointer() as reader:
            restored = reader.restore((workdir / "checkpoints" / str(step) / item).absolute())
        for path, leaf in jax.tree_util.tree_flatten_with_path(restored)[0]:
            found[item + jax.tree_util.keystr(path)] = np.asarray(leaf)
    return found


def newest(workdir):
    return max(int(folder.name) for folder in (workdir / "checkpoints").iterdir() if folder.name.isdigit())


def figures(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_stop_at_one_step_and_one_goes_on_from_their_shards(start, tmp_path):
    job = start(2, 2, "--config.parallel.mesh=data=2,fsdp=2")
    job.wait_for_step(3)
    job.processes[1].send_signal(signal.SIGTERM)
    assert job.ends() == [75, 75], job.text(0) + job.text(1)
    stopped = int(re.search(r"stopped at step (\d+); everything is saved", job.text(0))[1])
    assert newest(tmp_path / "run") == stopped
    job = start(1, 1)
    job.wait_for_step(stopped + 2)
    job.processes[0].send_signal(signal.SIGTERM)
    assert job.ends() == [75], job.text(0)
    assert f"resuming at step {stopped}" in job.text(0)
    steps = [line["step"] for line in figures(tmp_path / "run") if line["split"] == "train"]
    assert steps == list(range(1, newest(tmp_path / "run") + 1))


@pytest.mark.slow
def test_two_processes_four_and_one_go_on_from_one_another_through_signals_and_kills(start, tmp_path):
    workdir = tmp_path / "run"

    # Sharded over two processes of two devices. The signal goes to the second alone; both stop at one step, saved.
    job = start(2, 2, "--config.parallel.mesh=data=2,fsdp=2")
    job.wait_for_step(3)
    job.processes[1].send_signal(signal.SIGTERM)
    assert job.ends() == [75, 75], job.text(0) + job.text(1)
    stopped = int(re.search(r"stopped at step (\d+); everything is saved", job.text(0))[1])
    assert newest(workdir) == stopped
    assert "2 processes (JAX_* variables), 4 devices" in job.text(0)
    assert not [line for line in job.lines[1] if line.startswith("step ")]

    # In four processes, everything whole on each. A worker is killed: all others end in time and say why.
    job = start(4, 1)
    job.wait_for_step(max(stopped + 2, 9))
    assert f"resuming at step {stopped}" in job.text(0)
    job.processes[2].kill()
    begun = time.monotonic()
    assert job.ends() == [LOST, LOST, -signal.SIGKILL, LOST], [job.text(index) for index in range(4)]
    assert time.monotonic() - begun < 4 + 15
    assert re.search(r"(process 2 has given no sign of life for 4 s|the connection to another process broke)", job.text(0))
    assert "start the job again: it goes on from the newest checkpoint" in job.text(0)

    # In two processes of one device. The coordinator is killed: the other one does not stay behind.
    before = newest(workdir)
    job = start(2, 1, "--config.parallel.mesh=fsdp=*")
    job.wait_for_step(before + 6)
    assert f"resuming at step {before}" in job.text(0)
    job.processes[0].kill()
    codes = job.ends()
    assert codes[0] == -signal.SIGKILL
    assert codes[1] in (LOST, -signal.SIGABRT), job.text(1)

    # A process that stands still counts as lost.
    before = newest(workdir)
    job = start(2, 1)
    job.wait_for_step(before + 3)
    job.processes[1].send_signal(signal.SIGSTOP)
    assert job.ends(but=[1]) == [LOST], job.text(0)
    assert "process 1 has given no sign of life for 4 s" in job.text(0)
    job.processes[1].send_signal(signal.SIGCONT)
    assert job.ends()[1] != 0

    # In one process to the end; the run that nothing happened to is another program of one process.
    job = start(1, 1)
    assert job.ends() == [0], job.text(0)
    assert "test split: evaluated 3 of 3" in job.text(0)
    alone = start(1, 1, workdir="alone")
    assert alone.ends() == [0], alone.text(0)
    found, expected = arrays(workdir, STEPS), arrays(tmp_path / "alone", STEPS)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-4, err_msg=name)
    seen, wanted = figures(workdir), figures(tmp_path / "alone")
    assert [(line["step"], line["split"]) for line in seen] == [(line["step"], line["split"]) for line in wanted]
    for one, other in zip(seen, wanted, strict=True):
        np.testing.assert_allclose(one["loss"], other["loss"], rtol=1e-3, atol=1e-4)


def test_a_failure_of_one_process_ends_all_and_every_one_knows_why(start, tmp_path):
    job = start(2, 1, last=["--config.data.source=folder:nowhere"])
    assert job.ends() == [2, 2], job.text(0) + job.text(1)  # not LOST: starting it again would not help
    assert "jaxft: process 1: no folder 'nowhere'" in job.text(1)
    assert "jaxft: process 0: process 1 ended: no folder 'nowhere'" in job.text(0)
    assert not (tmp_path / "run").exists()
