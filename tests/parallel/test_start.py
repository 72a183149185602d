"""Who starts the processes is found in what is given, in JAX's variables, in the scheduler's; in that order."""

import socket
import subprocess
import sys

import pytest

from jaxft.errors import JaxftError
from jaxft.parallel import Job, find_job
from jaxft.parallel.start import first_host, shares_gpus

JAX = {"JAX_COORDINATOR_ADDRESS": "host0:1234", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}
SLURM = {
    "SLURM_JOB_ID": "70000",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "gpu[007-009,12],cpu1",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NUM_NODES": "4",
    "SLURM_PROCID": "5",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "1",
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
}
SKYPILOT = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "1", "SKYPILOT_NODE_IPS": "10.0.0.4\n10.0.0.9\n"}
KUBEFLOW = {
    "KUBERNETES_SERVICE_HOST": "10.0.0.1",
    "COORDINATOR_ADDRESS": "photos-worker-0",
    "COORDINATOR_PORT": "6666",
    "NUM_PROCESSES": "3",
    "PROCESS_ID": "2",
}


def test_what_is_given_counts_before_all_variables_and_jaxs_before_the_schedulers():
    everything = {**SLURM, **OPEN_MPI, **SKYPILOT, **KUBEFLOW, **JAX}
    assert find_job("here:1", 2, 0, everything) == Job("here:1", 2, 0, "given")
    assert find_job(None, None, None, everything) == Job("host0:1234", 4, 3, "JAX_* variables")


@pytest.mark.parametrize(
    ("variables", "job"),
    [
        (SLURM, Job("gpu007:61808", 8, 5, "Slurm")),
        (OPEN_MPI, Job("10.96.0.1:64330", 2, 1, "Open MPI")),
        ({**OPEN_MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, Job("127.0.0.1:64330", 2, 1, "Open MPI")),
        (SKYPILOT, Job("10.0.0.4:8476", 2, 1, "SkyPilot")),
        (KUBEFLOW, Job("photos-worker-0:6666", 3, 2, "Kubernetes")),
    ],
    ids=lambda value: value.origin if isinstance(value, Job) else "",
)
def test_the_variables_of_schedulers_are_read(variables, job):
    assert find_job(None, None, None, variables) == job


@pytest.mark.parametrize(
    "variables",
    [
        {},
        # An allocation, or the batch script itself: nobody has started others.
        {key: SLURM[key] for key in ("SLURM_JOB_ID", "SLURM_PROCID")} | {"SLURM_NTASKS": "8", "SLURM_NODELIST": "gpu[1-2]"},
        {**SLURM, "SLURM_STEP_ID": "batch"},
        {"NUM_PROCESSES": "3", "PROCESS_ID": "2"},  # anybody's names, outside Kubernetes
        {"JAX_COORDINATOR_ADDRESS": "host0:1234"},
    ],
)
def test_where_nobody_says_so_there_is_one_process(variables):
    assert find_job(None, None, None, variables) is None


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("node[3-5]", "node3"),
        ("a[01,03-04]b", "a01"),
        ("rack1-[08-12],rack2-1", "rack1-08"),
    ],
)
def test_the_first_of_slurms_hosts(nodes, first):
    assert first_host(nodes) == first


@pytest.mark.parametrize(
    ("variables", "shares"),
    [
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "4"}, False),
        (SLURM, True),
        ({**SLURM, "SLURM_GPUS_PER_TASK": "2"}, False),
        ({**SLURM, "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, True),
        ({**SLURM, "CUDA_VISIBLE_DEVICES": "0"}, False),
        (OPEN_MPI, False),
        ({**OPEN_MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, True),
        ({**JAX, "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, False),
    ],
)
def test_a_process_that_is_alone_on_its_host_has_all_its_gpus(variables, shares):
    assert shares_gpus(variables) is shares


#: Two processes of one program, started with a scheduler's variables, that say which GPUs JAX would open.
VISIBLE = """
import jax
from jax._src.xla_bridge import CUDA_VISIBLE_DEVICES
from jaxft.parallel import end_watch, start
start()
print(jax.process_index(), jax.process_count(), CUDA_VISIBLE_DEVICES.value)
end_watch()
"""


def test_jax_opens_all_gpus_of_a_host_where_slurm_starts_one_process_on_each():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        job = free.getsockname()[1]  # Slurm's numbers of jobs give the port
    step = {
        **SLURM,
        "SLURM_JOB_ID": str(job),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_NODES": "2",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_NTASKS": "2",
        "JAX_PLATFORMS": "cpu",
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-c", VISIBLE],
            stdout=subprocess.PIPE,
            text=True,
            env={**step, "SLURM_PROCID": str(index), "SLURM_LOCALID": "0"},
        )
        for index in range(2)
    ]
    said = [process.communicate(timeout=60)[0] for process in started]
    assert said == ["0 2 all\n", "1 2 all\n"]


@pytest.mark.parametrize(
    ("given", "variables", "message"),
    [
        (("host:1", 2, None), {}, "--process is missing: --coordinator, --processes and --process belong together"),
        ((None, None, 1), {}, "--coordinator, --processes is missing"),
        ((None, None, None), {**JAX, "JAX_PROCESS_ID": ""}, "JAX_PROCESS_ID is missing"),
        (("host:1", 2, 2), {}, "--processes is 2 and --process 2: processes count from 0"),
        (("host:1", 2, -1), {}, "--processes is 2 and --process -1: processes count from 0"),
        (("host", 2, 0), {}, "--coordinator is 'host': it is written host:port"),
        ((None, None, None), {**JAX, "JAX_NUM_PROCESSES": "many"}, "JAX_NUM_PROCESSES is many"),
        (
            (None, None, None),
            {key: value for key, value in OPEN_MPI.items() if "uri" not in key},
            "Open MPI started processes on several hosts, but does not say on which",
        ),
    ],
)
def test_what_does_not_fit_together_is_said(given, variables, message):
    with pytest.raises(JaxftError, match=message):
        find_job(*given, variables)


def test_one_process_is_no_job_and_start_may_be_called_again():
    code = """
from jaxft.parallel import everyone, from_first, is_first, start
print([start("127.0.0.1:1", 1, 0), start(), start()], is_first(), everyone(True), everyone(False), from_first(lambda: 3))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"JAX_PLATFORMS": "cpu"}
    )
    assert done.stdout == "['', '', ''] True True False 3\n"
