"""What `launch/` starts is `jaxft train` as it is: by the ssh script for real, with a stand-in for ssh alone; by the files for
schedulers as far as these are at hand: what they say, and what the variables are to `find_job`."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from compiled import older_generator

from jaxft.cli.main import FAILED, INTERRUPTED, USAGE
from jaxft.parallel import LOST, Job, find_job

LAUNCH = Path(__file__).parents[2] / "launch"
#: Two names of this machine: the first one is where the processes meet.
HOSTS = "127.0.0.1,localhost"
#: Skips options and the host, and gives the rest to a shell, as the other end of ssh does.
SSH = """#!/bin/sh
while [ "$1" = -o ]; do shift 2; done
shift
exec sh -c "$*"
"""


class Launcher:
    """The ssh script with a command, whose output is read as it comes."""

    def __init__(self, bin, command, *options, **variables):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.text = ""
        self.process = subprocess.Popen(
            [sys.executable, LAUNCH / "ssh.py", f"--hosts={HOSTS}", f"--port={port}", *options, "--", *command],
            env={**os.environ, **variables, "PATH": f"{bin}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def read_until(self, pattern):
        for line in self.process.stdout:
            self.text += line
            if re.search(pattern, line):
                return
        raise AssertionError(self.text)

    def ends(self):
        self.text += self.process.stdout.read()
        return self.process.wait(120)


@pytest.fixture
def launch(tmp_path):
    (tmp_path / "ssh").write_text(SSH)
    (tmp_path / "ssh").chmod(0o755)
    started = []

    def start(command, *options, **variables):
        started.append(Launcher(tmp_path, command, *options, **variables))
        return started[-1]

    yield start
    for launcher in started:
        if launcher.process.poll() is None:
            launcher.process.kill()  # the commands notice by their standard input
        launcher.process.wait()


def training(recipe, workdir, steps):
    """A run of the head alone: quick to compile."""
    return [
        *(sys.executable, "-m", "jaxft", "train", f"--config={recipe}", f"--workdir={workdir}"),
        f"--config.phases.phase1.length={steps} steps",
        "--config.phases.phase2.length=0 steps",
        "--config.train.accum_steps=1",
        "--config.train.checkpoint_every=4 steps",
        "--config.train.eval_every=200 steps",
        "--config.train.log_every=1 steps",
        "--config.parallel.lost_after=4",
    ]


def variables():
    """Compiled without most optimisations: each program runs a few times."""
    return {"JAX_NUM_CPU_DEVICES": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", **older_generator()}


# ssh


def test_every_host_gets_its_index_and_the_users_words_and_a_failure_ends_all_at_once(launch, tmp_path):
    script = (
        'echo "$JAX_PROCESS_ID/$JAX_NUM_PROCESSES $NAME"; '
        f"[ $JAX_PROCESS_ID = 0 ] && touch {tmp_path}/said && exec sleep 60; "
        f"until [ -f {tmp_path}/said ]; do sleep .05; done; exit 2"
    )
    launcher = launch(["sh", "-c", script], "--env=NAME=it's a  b")
    begun = time.monotonic()
    assert launcher.ends() == USAGE
    assert time.monotonic() - begun < 15
    assert "[127.0.0.1] 0/2 it's a  b\n" in launcher.text
    assert "[localhost] 1/2 it's a  b\n" in launcher.text
    assert "start again" not in launcher.text


def test_all_start_again_where_one_was_lost_but_not_for_ever_and_at_another_port(launch):
    launcher = launch(["sh", "-c", f"echo $JAX_COORDINATOR_ADDRESS; exit $((JAX_PROCESS_ID ? {LOST} : 0))"], "--restarts=1")
    assert launcher.ends() == LOST
    assert "all start again in 2 s (1 of 1)" in launcher.text
    assert len(set(re.findall(r"127\.0\.0\.1:\d+", launcher.text))) == 2


def test_where_the_script_itself_is_killed_the_commands_are_asked_to_end(launch, tmp_path):
    launcher = launch(
        ["sh", "-c", f"trap 'touch {tmp_path}/saved.$JAX_PROCESS_ID; exit' TERM; echo up; while :; do sleep .1; done"]
    )
    launcher.read_until("up")
    launcher.read_until("up")
    launcher.process.kill()
    end = time.monotonic() + 10
    while time.monotonic() < end and not all((tmp_path / f"saved.{index}").exists() for index in (0, 1)):
        time.sleep(0.05)
    assert (tmp_path / "saved.0").exists()
    assert (tmp_path / "saved.1").exists()


def test_a_run_on_two_hosts_saves_when_the_script_is_told_to_end(launch, recipe, tmp_path):
    launcher = launch(training(recipe, tmp_path / "run", 500), **variables())
    launcher.read_until(r"\] step 2/")
    launcher.process.send_signal(signal.SIGTERM)
    assert launcher.ends() == INTERRUPTED, launcher.text
    assert "2 processes (JAX_* variables), 2 devices" in launcher.text
    assert "[127.0.0.1] stopped at step" in launcher.text
    assert "not started again: you stopped it" in launcher.text


@pytest.mark.slow
def test_a_killed_process_is_started_again_with_the_others_and_the_run_ends(launch, recipe, tmp_path):
    mark = tmp_path / "killed"
    command = " ".join(map(repr, training(recipe, tmp_path / "run", 30)))
    # The second process of the first attempt is killed once a checkpoint is there.
    script = (
        f"if [ $JAX_PROCESS_ID = 1 ] && mkdir {mark} 2>/dev/null; then {command} & "
        f"until [ -d {tmp_path}/run/checkpoints/8 ]; do sleep 0.1; done; kill -9 $!; kill -9 $$; fi; exec {command}"
    )
    launcher = launch(["sh", "-c", script], **variables())
    assert launcher.ends() == 0, launcher.text
    assert re.search(r"ssh.py: 127.0.0.1 (69|134), localhost 137", launcher.text), launcher.text
    assert "all start again in 2 s (1 of 10)" in launcher.text
    assert re.search(r"resuming at step \d+", launcher.text)
    assert "step 30/30" in launcher.text


# Slurm


def batch(tmp_path, code, state, restarts):
    """Runs the batch script with commands in the place of Slurm's; returns its exit code and what it asked of Slurm."""
    commands = {
        "srun": f'echo "srun $@"; exit {code}',
        "squeue": f"echo {state}",
        "scontrol": 'echo "scontrol $@"',
        "sleep": "",
    }
    for name, script in commands.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "64"}
    if restarts:
        variables["SLURM_RESTART_COUNT"] = str(restarts)
    command = ["bash", LAUNCH / "slurm.sh", "--config=a b.py", "--workdir=run"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("srun --cpus-per-task=64 --kill-on-bad-exit=0 jaxft train --config=a b.py --workdir=run\n")
    assert done.stderr == ""
    return done.returncode, "scontrol requeue 7" in done.stdout


@pytest.mark.parametrize(
    ("code", "state", "restarts", "again"),
    [
        (0, "RUNNING", 0, False),
        (FAILED, "RUNNING", 0, False),
        (USAGE, "RUNNING", 0, False),
        (INTERRUPTED, "RUNNING", 0, True),
        (LOST, "RUNNING", 99, True),
        (134, "RUNNING", 0, True),
        (137, "RUNNING", 0, True),
        (LOST, "RUNNING", 100, False),
        (INTERRUPTED, "COMPLETING", 0, False),  # scancel
    ],
)
def test_the_batch_script_has_slurm_queue_the_job_again_by_its_exit_code(tmp_path, code, state, restarts, again):
    assert batch(tmp_path, code, state, restarts) == (code, again)


def test_the_batch_script_starts_one_process_on_each_node_and_leaves_time_to_save():
    options = re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", (LAUNCH / "slurm.sh").read_text(), re.M)
    assert {"ntasks-per-node": "1", "signal": "TERM@120", "requeue": ""}.items() <= dict(options).items()


# Kubernetes, SkyPilot


def test_the_trainjob_starts_all_again_unless_one_failed():
    runtime, job = yaml.safe_load_all((LAUNCH / "kubeflow.yaml").read_text())
    assert job["spec"]["runtimeRef"] == {"kind": runtime["kind"], "name": runtime["metadata"]["name"]}
    assert job["spec"]["trainer"]["command"] == ["jaxft", "train"]
    template = runtime["spec"]["template"]["spec"]
    (node,) = template["replicatedJobs"]
    spec = node["template"]["spec"]
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"]["values"] == [FAILED, USAGE]
    assert spec["backoffLimit"] == 0
    assert spec["template"]["spec"]["restartPolicy"] == "Never"  # Kubernetes wants it for the rules
    # The names by which the Trainer finds what to fill in.
    assert node["name"] == spec["template"]["spec"]["containers"][0]["name"] == rule["onExitCodes"]["containerName"] == "node"
    assert "jax" in runtime["spec"]["mlPolicy"]
    # What its jax policy (pkg/runtime/framework/plugins/jax, 2.3.0) sets in the second of four pods.
    environ = {"JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "1", "JAX_COORDINATOR_ADDRESS": "photos-node-0-0.photos:29500"}
    assert all(name in (LAUNCH / "kubeflow.yaml").read_text() for name in environ)
    assert find_job(None, None, None, environ) == Job("photos-node-0-0.photos:29500", 4, 1, "JAX_* variables")


def test_the_task_of_skypilot_recovers_by_exit_code_and_its_variables_are_read():
    text = (LAUNCH / "skypilot.yaml").read_text()
    task = yaml.safe_load(text)
    again = task["resources"]["job_recovery"]["recover_on_exit_codes"]
    assert {INTERRUPTED, LOST, 134} <= set(again)
    assert not {0, FAILED, USAGE, 137} & set(again)  # 137: what SkyPilot itself gives the nodes that it ends
    assert task["volumes"] == {"/shared": yaml.safe_load((LAUNCH / "skypilot-volume.yaml").read_text())["name"]}
    assert "jaxft train" in task["run"]
    environ = {"SKYPILOT_NODE_IPS": "10.0.0.4\n10.0.0.9", "SKYPILOT_NUM_NODES": "4", "SKYPILOT_NODE_RANK": "1"}
    assert all(name in text for name in environ)
    assert find_job(None, None, None, environ) == Job("10.0.0.4:8476", 4, 1, "SkyPilot")
