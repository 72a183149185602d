"""Several processes as one program: who starts them is found out, not asked.

`start` reads what is given, then JAX's variables (also those that JAX itself ignores), then those of the scheduler: Slurm, Open
MPI, SkyPilot, Kubernetes; GKE's and Compute Engine's TPUs are left to JAX's own detection. Else there is one process.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path

import jax

from jaxft.errors import JaxftError
from jaxft.parallel.processes import watch_processes

#: Seconds in which all processes must have come.
ARRIVAL = 600
_PORT = 8476
_origin = "JAX"


@dataclasses.dataclass(frozen=True)
class Job:
    """The processes of a program.

    Attributes:
      address: "host:port" at which the first one listens.
      processes: how many there are.
      index: which this one is.
      origin: who said so.
    """

    address: str
    processes: int
    index: int
    origin: str


def start(
    address: str | None = None,
    processes: int | None = None,
    index: int | None = None,
    *,
    lost_after: float = 60,
    environ: Mapping[str, str] = os.environ,
) -> str:
    """Joins the processes of this program, if there are several. To be called before JAX computes; further calls do nothing.

    Args:
      address, processes, index: see `Job`; all three, or none: then the environment says.
      lost_after: seconds without a sign of life after which a process counts as lost and all others end.
      environ: the environment.

    Returns:
      One line that says how many processes there are and who said so; "" for one.

    Raises:
      JaxftError: what is given, or what the environment says, does not fit together.
    """
    global _origin
    if not jax.distributed.is_initialized():
        job = find_job(address, processes, index, environ)
        if job is not None and job.processes > 1:
            _join(job, environ)
            _origin = job.origin
        elif job is None and _on_tpu_pod(environ):
            _join(None, environ)
        else:
            return ""
    if jax.process_count() == 1:
        return ""
    watch_processes(lost_after)
    return f"{jax.process_count()} processes ({_origin}), {jax.device_count()} devices"


def _join(job: Job | None, environ: Mapping[str, str]) -> None:
    address, processes, index = (job.address, job.processes, job.index) if job else (None, None, None)
    try:
        # jaxft watches the processes itself (see `watch_processes`), and says more: JAX's own watch comes later.
        jax.distributed.initialize(
            address,
            processes,
            index,
            # What JAX's own detection of Slurm and Open MPI would still add is one GPU for each process, and no more.
            cluster_detection_method="deactivate" if job and not shares_gpus(environ) else None,
            initialization_timeout=ARRIVAL,
            heartbeat_timeout_seconds=600,
            shutdown_timeout_seconds=60,
        )
    except (RuntimeError, ValueError) as error:
        where = f" at {address}" if address else ""
        raise JaxftError(f"the processes of this program do not come together{where}: {str(error).splitlines()[0]}") from error


def find_job(
    address: str | None, processes: int | None, index: int | None, environ: Mapping[str, str] = os.environ
) -> Job | None:
    """What is given or what the environment says of this program's processes; None where it says nothing.

    Raises:
      JaxftError: something is missing, or does not fit.
    """
    given = {"--coordinator": address, "--processes": processes, "--process": index}
    if any(value is not None for value in given.values()):
        return _complete({name: None if value is None else str(value) for name, value in given.items()}, "given")
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    if any(environ.get(name) for name in names[1:]):
        return _complete({name: environ.get(name) or None for name in names}, "JAX_* variables")
    for look in (_slurm, _open_mpi, _skypilot, _kubernetes):
        if (found := look(environ)) is not None:
            return found
    return None


def shares_gpus(environ: Mapping[str, str]) -> bool:
    """Whether each process takes but the GPU of its place on the host: where a scheduler started several on one, and left
    the GPUs to all of them. A process that is alone on its host has all, one that was given its own has those."""
    several = (_number(environ, "SLURM_STEP_NUM_TASKS") or 1) > (_number(environ, "SLURM_STEP_NUM_NODES") or 1) or (
        (_number(environ, "OMPI_COMM_WORLD_LOCAL_SIZE") or 1) > 1
    )
    given = "SLURM_GPUS_PER_TASK" in environ or "," not in environ.get("CUDA_VISIBLE_DEVICES", ",")
    return several and not given


def _complete(given: dict[str, str | None], origin: str) -> Job:
    (address_name, address), (count_name, count), (index_name, index) = given.items()
    missing = [name for name, value in given.items() if value is None]
    if missing and not (missing == [address_name] and count == "1"):
        raise JaxftError(f"{', '.join(missing)} is missing: {address_name}, {count_name} and {index_name} belong together")
    if not (count or "").isdigit() or not (index or "0").isdigit() or not 0 <= int(index or 0) < int(count or 0):
        raise JaxftError(f"{count_name} is {count} and {index_name} {index}: processes count from 0")
    if address is not None and not re.fullmatch(r"\S+:\d+", address):
        raise JaxftError(f"{address_name} is '{address}': it is written host:port")
    return Job(address or f"127.0.0.1:{_PORT}", int(count or 1), int(index or 0), origin)


def _number(environ: Mapping[str, str], name: str) -> int | None:
    value = environ.get(name, "")
    return int(value) if value.isdigit() else None


def _slurm(environ: Mapping[str, str]) -> Job | None:
    """Steps of srun only: in a batch script or an allocation itself, variables of the job are set, but nobody starts others."""
    count, index = _number(environ, "SLURM_STEP_NUM_TASKS"), _number(environ, "SLURM_PROCID")
    nodes, job = environ.get("SLURM_STEP_NODELIST"), _number(environ, "SLURM_JOB_ID")
    if count is None or index is None or not nodes or job is None or environ.get("SLURM_STEP_ID", "").startswith("batch"):
        return None
    return Job(f"{first_host(nodes)}:{_job_port(job)}", count, index, "Slurm")


def first_host(nodes: str) -> str:
    """The first of Slurm's list of hosts: "gpu[007-009,12],cpu1" is gpu007."""
    first = re.split(r",(?![^\[]*\])", nodes)[0]
    name, bracket, ranges = first.partition("[")
    return name + re.split(r"[-,\]]", ranges)[0] if bracket else name


def _job_port(job: int) -> int:
    """A port of the job's own: several jobs may share a host."""
    return 61440 + job % 4096


def _open_mpi(environ: Mapping[str, str]) -> Job | None:
    count, index = _number(environ, "OMPI_COMM_WORLD_SIZE"), _number(environ, "OMPI_COMM_WORLD_RANK")
    if count is None or index is None:
        return None
    uri = environ.get("OMPI_MCA_orte_hnp_uri", "")
    found = re.search(r"tcp://\[?([0-9.]+)", uri)
    here = _number(environ, "OMPI_COMM_WORLD_LOCAL_SIZE") == count
    if not here and found is None:
        raise JaxftError(
            "Open MPI started processes on several hosts, but does not say on which: pass them on with "
            "mpirun -x JAX_COORDINATOR_ADDRESS=HOST:PORT, and set JAX_NUM_PROCESSES and JAX_PROCESS_ID from "
            "OMPI_COMM_WORLD_SIZE and OMPI_COMM_WORLD_RANK"
        )
    name = environ.get("PMIX_NAMESPACE") or environ.get("OMPI_MCA_ess_base_jobid") or uri.split(".")[0] or "0"
    number = int(re.sub(r"\D", "", name) or 0)
    port = _job_port(number ^ number >> 16)  # of a numeric job the upper half tells it from others
    return Job(f"{'127.0.0.1' if here or found is None else found[1]}:{port}", count, index, "Open MPI")


def _skypilot(environ: Mapping[str, str]) -> Job | None:
    count, index = _number(environ, "SKYPILOT_NUM_NODES"), _number(environ, "SKYPILOT_NODE_RANK")
    hosts = environ.get("SKYPILOT_NODE_IPS", "").split()
    if count is None or index is None or not hosts:
        return None
    return Job(f"{hosts[0]}:{_PORT}", count, index, "SkyPilot")


def _kubernetes(environ: Mapping[str, str]) -> Job | None:
    """Kubeflow's JAXJob, which sets these four in every pod."""
    count, index = _number(environ, "NUM_PROCESSES"), _number(environ, "PROCESS_ID")
    host, port = environ.get("COORDINATOR_ADDRESS"), _number(environ, "COORDINATOR_PORT")
    if count is None or index is None or not host or port is None or "KUBERNETES_SERVICE_HOST" not in environ:
        return None
    return Job(f"{host}:{port}", count, index, "Kubernetes")


def _on_tpu_pod(environ: Mapping[str, str]) -> bool:
    """Whether this may be one of several hosts of a TPU slice, which JAX finds out by itself."""
    if environ.get("JAX_PLATFORMS", "tpu").split(",")[0] not in ("", "tpu") or importlib.util.find_spec("libtpu") is None:
        return False
    return any(Path(device).exists() for device in ("/dev/accel0", "/dev/vfio/0", "/dev/vfio/devices"))
