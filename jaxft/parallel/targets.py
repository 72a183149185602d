"""Hardware that is not here, as a target of compilation: its name, its devices, and what its makers publish of it.

Nothing runs on such devices: XLA compiles for them from a description, on any Linux computer. The TPU compiler is in `libtpu`,
the one for NVIDIA in JAX's CUDA plugin, which needs neither a driver nor the CUDA libraries for it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Iterator

import jax
from jax.experimental import topologies

from jaxft.errors import JaxftError, near

_GIB = 1 << 30
_WRITTEN = "write v5e:4x4 (the chips of a TPU slice), 2xv5e:4x4 (two such slices), h100:8 or h100:2x8 (two hosts of 8)"


@dataclasses.dataclass(frozen=True)
class Figures:
    """What is published of one device, a TPU chip or a GPU: dense FLOP/s, bytes, bytes/s.

    Attributes:
      device_kind: JAX's name.
      float32: FLOP/s as JAX computes it by default: in bfloat16 passes on TPU, in TF32 on NVIDIA.
      bfloat16: FLOP/s.
      memory: bytes of HBM.
      usable: bytes of it that a program can have. TPU: the compiler refuses what needs more. NVIDIA: what JAX takes by default,
        three quarters; `XLA_PYTHON_CLIENT_MEM_FRACTION` changes it, and the compiler refuses nothing.
      bandwidth: bytes/s between HBM and the cores.
      link: bytes/s one device can send to the others of its slice (TPU) or host (NVIDIA), over all its links together. One
        direction: half of what is published as bidirectional. A TPU slice without wrap-around uses half its links at the edge.
      network: bytes/s one device can send to other slices or hosts, its share of their network. One direction. None: not
        published.
    """

    device_kind: str
    float32: float
    bfloat16: float
    memory: int
    usable: int
    bandwidth: float
    link: float
    network: float | None


#: TPU: docs.cloud.google.com/tpu/docs, the pages v4, v5e, v5p and v6e. Their "bidirectional inter-chip interconnect bandwidth
#: (per chip)" is halved, their data center network bandwidth of a pod divided by its chips. What programs can have is the lower
#: of what libtpu 0.0.42 and 0.0.50 name when they refuse one. NVIDIA: the data sheets nvidia.com/en-us/data-center/h100 (SXM;
#: figures with sparsity halved) and /a100 (80 GB SXM); the network is that of NVIDIA's own servers, DGX H100 and DGX A100, with
#: one ConnectX card a GPU, of 400 and of 200 Gb/s; other servers have other networks.
FIGURES: dict[str, Figures] = {
    # Links: N. Jouppi et al., "TPU v4", ISCA 2023, table 4: 6 links of 50 GB/s. Of its network nothing is published.
    "v4": Figures("TPU v4", 275e12, 275e12, 32 * _GIB, int(30.75 * _GIB), 1200e9, 300e9, None),
    # 400 GB/s bidirectional; 6.4 Tb/s for 256 chips.
    "v5e": Figures("TPU v5 lite", 197e12, 197e12, 16 * _GIB, int(15.75 * _GIB), 819e9, 200e9, 3.125e9),
    # 1200 GB/s bidirectional; 50 Gb/s a chip. Of 96 GiB the page counts 95, the compiler somewhat more.
    "v5p": Figures("TPU v5", 459e12, 459e12, 96 * _GIB, int(95.73 * _GIB), 2765e9, 600e9, 6.25e9),
    # 800 GB/s bidirectional; 25.6 Tb/s for 256 chips.
    "v6e": Figures("TPU v6 lite", 918e12, 918e12, 32 * _GIB, int(31.24 * _GIB), 1600e9, 400e9, 12.5e9),
    # NVLink: 600 and 900 GB/s, both directions.
    "a100": Figures("NVIDIA A100-SXM4-80GB", 156e12, 312e12, 80_000_000_000, 60_000_000_000, 2039e9, 300e9, 25e9),
    "h100": Figures("NVIDIA H100 80GB HBM3", 494.7e12, 989.4e12, 80_000_000_000, 60_000_000_000, 3350e9, 450e9, 50e9),
}

#: Sizes of a slice, as the same pages list them; v4 and v5p have besides all a x b x c with a <= b <= c, multiples of 4.
_SQUARES = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_CUBES = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))
_SLICES = {"v4": _CUBES, "v5e": _SQUARES, "v5p": _CUBES, "v6e": _SQUARES}
#: Chips of the largest slice of the kinds with three dimensions.
_MOST_CHIPS = {"v4": 4096, "v5p": 6144}
#: GPUs that one host has, at most: an HGX or DGX board.
_PER_HOST = 8


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices to compile for.

    Attributes:
      name: as `parse_target` reads it, without what goes without saying.
      kind: "tpu" or "gpu".
      generation: "v5e", "h100", a key of `FIGURES`.
      topology: TPU: chips of one slice along each dimension. GPU: hosts, GPUs of each.
      slices: TPU slices with a network between them; 1 for GPUs.
    """

    name: str
    kind: str
    generation: str
    topology: tuple[int, ...]
    slices: int = 1

    @property
    def devices(self) -> int:
        """How many devices: a chip is one (v4's and v5p's two cores compute as one), a GPU is one."""
        return math.prod(self.topology) * self.slices

    @property
    def hosts(self) -> int:
        """Computers, each with a process of its own. Of TPUs each has 4 chips, as in Google Cloud's slices of several hosts."""
        return self.topology[0] if self.kind == "gpu" else self.slices * -(-math.prod(self.topology) // 4)

    @property
    def figures(self) -> Figures:
        return FIGURES[self.generation]


def parse_target(text: str) -> Target:
    """Reads "v5e:4x4", "2xv5e:4x4" (two slices; "2*v5e:4x4" too), "h100:8" or "h100:2x8" (two hosts of 8).

    Raises:
      JaxftError: not written so, no such accelerator, or none of this size.
    """
    found = re.fullmatch(r"(?:(\d+)[x*])?([a-z]\w*):(\d+(?:x\d+)*)", re.sub(r"\s", "", text).lower())
    if not found:
        raise JaxftError(f"the target is '{text}': {_WRITTEN}")
    generation, sizes = found[2], tuple(int(size) for size in found[3].split("x"))
    if generation not in FIGURES:
        raise JaxftError(
            f"the target is '{text}': no accelerator '{generation}' is known{near(generation, FIGURES)}; known are "
            f"{', '.join(FIGURES)}"
        )
    slices = int(found[1] or 1)
    if slices < 1:
        raise JaxftError(f"the target is '{text}': it needs at least one slice")
    if generation in _SLICES:
        return _tpu(text, generation, sizes, slices)
    return _gpu(text, generation, sizes, slices)


def _tpu(text: str, generation: str, sizes: tuple[int, ...], slices: int) -> Target:
    dimensions = len(_SLICES[generation][0])
    written = _written(sizes)
    if len(sizes) != dimensions:
        number = {1: "one", 2: "two", 3: "three"}
        example = f"{generation}:{_written(_SLICES[generation][-1])}"
        raise JaxftError(
            f"the target is '{text}': slices of {generation} have {number[dimensions]} dimensions, such as {example}; "
            f"'{written}' has {number.get(len(sizes), len(sizes))}"
        )
    options = list(_sizes(generation))
    if sizes not in options:
        turned = [option for option in options if sorted(option) == sorted(sizes)]
        hint = f" (did you mean '{_written(turned[0])}'?)" if turned else near(written, map(_written, options))
        more = (
            f", and a x b x c in ascending multiples of 4, of at most {_MOST_CHIPS[generation]:,} chips"
            if generation in _MOST_CHIPS
            else ""
        )
        raise JaxftError(
            f"the target is '{text}': {generation} has no slice of '{written}'{hint}; it has "
            f"{', '.join(map(_written, _SLICES[generation]))}{more}"
        )
    name = f"{slices}x{generation}:{written}" if slices > 1 else f"{generation}:{written}"
    return Target(name, "tpu", generation, sizes, slices)


def _sizes(generation: str) -> Iterator[tuple[int, ...]]:
    """All slices of a generation of TPUs, in chips along each dimension."""
    yield from _SLICES[generation]
    most = _MOST_CHIPS.get(generation, 0)
    for a in range(4, math.isqrt(most) + 1, 4):
        for b in range(a, most // a + 1, 4):
            yield from ((a, b, c) for c in range(b, most // (a * b) + 1, 4))


def _gpu(text: str, generation: str, sizes: tuple[int, ...], slices: int) -> Target:
    if slices > 1:
        raise JaxftError(
            f"the target is '{text}': only TPUs come in slices; {slices} hosts are {generation}:{slices}x{sizes[-1]}"
        )
    if len(sizes) > 2:
        raise JaxftError(f"the target is '{text}': {generation} takes hosts x GPUs of each, such as {generation}:2x8")
    hosts, each = sizes if len(sizes) == 2 else (1, *sizes)
    if hosts < 1 or not 1 <= each <= _PER_HOST:
        whole = hosts == 1 and each > 0 and each % _PER_HOST == 0
        hint = f"; {each} of them are {generation}:{each // _PER_HOST}x{_PER_HOST}" if whole else ""
        raise JaxftError(f"the target is '{text}': there are hosts of 1 to {_PER_HOST} {generation}{hint}")
    return Target(f"{generation}:{hosts}x{each}" if hosts > 1 else f"{generation}:{each}", "gpu", generation, (hosts, each))


def _written(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


#: Without these libtpu looks for a TPU host around it, or asks the network for one, and complains in many lines that there is
#: none. It allows one process at a time, and writes logs to a folder of its own. The type is a host's, not the target's.
_TPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_LOG_DIR": "disabled",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def environment(target: Target) -> dict[str, str]:
    """The environment variables of a process that compiles for `target`, to be set before JAX computes.

    They fit all targets of a kind, and one kind's do not disturb the other: a process can compile for many.
    """
    # Otherwise JAX starts the target's own platform for its constants, fails, and says so in many lines.
    return {"JAX_PLATFORMS": "cpu"} | (_TPU_ENVIRONMENT if target.kind == "tpu" else {})


def prepare(target: Target) -> None:
    """Makes this process one that can compile for `target`: before JAX computes, best before anything is done.

    Sets the environment (what the user set for libtpu stays), lets JAX compute on the CPU, and turns the cache of compiled
    functions off, which could not read such ones back.

    Raises:
      JaxftError: the compiler is not installed.
    """
    _require_compiler(target)
    for name, value in environment(target).items():
        if name != "JAX_PLATFORMS":
            os.environ.setdefault(name, value)
    os.environ["JAX_PLATFORMS"] = "cpu"
    jax.config.update("jax_enable_compilation_cache", False)
    with contextlib.suppress(RuntimeError):  # JAX computes already: where does not matter to the compiler
        jax.config.update("jax_platforms", "cpu")  # it read the variable when it was imported


def _require_compiler(target: Target) -> None:
    if target.kind == "tpu":
        if os.environ.get("TPU_LIBRARY_PATH") or importlib.util.find_spec("libtpu"):
            return
        raise JaxftError(
            f"compiling for {target.name} takes the TPU compiler: pip install 'jaxft[compile-tpu]' brings the libtpu that goes "
            f"with JAX {jax.__version__} (Linux)"
        )
    plugins = importlib.util.find_spec("jax_plugins")
    if plugins is None or not any(importlib.util.find_spec(f"jax_plugins.xla_cuda{version}") for version in (12, 13)):
        raise JaxftError(
            f"compiling for {target.name} takes JAX's CUDA plugin: pip install 'jaxft[compile-cuda]' brings the one of JAX "
            f"{jax.__version__} (Linux; without the CUDA libraries, which compiling does not need)"
        )


def target_devices(target: Target) -> list[jax.Device]:
    """The devices of a target, to lower and compile for and nothing else: no array can be on them. After `prepare`.

    Slice after slice, host after host.

    Raises:
      JaxftError: the compiler does not know the target, or JAX computed before `prepare`.
    """
    try:
        if target.kind == "gpu":
            description = topologies.get_topology_desc(
                platform="cuda",
                topology_name=target.name,
                # Partitions x their hosts x GPUs: NVLink joins the GPUs of a host, which is a partition of its own.
                topology=f"{target.topology[0]}x1x{target.topology[1]}",
                target_config=_target_config(target.generation),
            )
        else:
            description = topologies.get_topology_desc(
                platform="tpu", topology_name=f"{target.generation}:{_written(target.topology)}", **_tpu_options(target)
            )
    except NotImplementedError as error:  # the plugin gave up when JAX began to compute, having found no GPU
        raise JaxftError(
            f"JAX computed before it was prepared for {target.name}: set JAX_PLATFORMS=cpu in the environment"
        ) from error
    except RuntimeError as error:  # jax.errors.JaxRuntimeError is one
        raise JaxftError(f"the compiler that is installed does not take {target.name}: {str(error).splitlines()[0]}") from error
    return list(description.devices)


def _tpu_options(target: Target) -> dict[str, object]:
    options: dict[str, object] = {}
    if target.generation == "v4":  # both cores of a chip as one device; elsewhere that is so anyway
        options["chip_config_name"] = "megacore"
    if math.prod(target.topology) == 1:  # libtpu 0.0.42 would want four chips of a host
        options["chips_per_host_bounds"] = (1, 1, 1)
    if target.slices > 1:
        options["num_slices"] = target.slices
    return options


@dataclasses.dataclass(frozen=True)
class _Gpu:
    """What XLA wants to know of a GPU beside its figures. Bytes, GHz."""

    capability: tuple[int, int]
    processors: int  # streaming multiprocessors
    lanes: int  # float32 units of each
    clock: float
    l2: int
    shared: int  # of each processor; a block can have 1 KiB less


#: NVIDIA's white papers of the A100 and H100 (SXM): processors, units, L2; the boost clock is what makes their float32 peaks of
#: 19.5 and 66.9 TFLOP/s. Shared memory: CUDA C++ Programming Guide, technical specifications per compute capability.
_GPUS = {
    "a100": _Gpu((8, 0), 108, 64, 1.41, 40 << 20, 164 << 10),
    "h100": _Gpu((9, 0), 132, 128, 1.98, 50 << 20, 228 << 10),
}


def _target_config(generation: str) -> str:
    """XLA's description of a GPU, a `stream_executor.GpuTargetConfigProto` in text.

    The limits of threads, registers and grids are the same for all GPUs here (CUDA C++ Programming Guide, as above). The
    versions of cuDNN and CUDA are about the least that JAX asks for.
    """
    gpu, figures = _GPUS[generation], FIGURES[generation]
    return f"""
        platform_name: "CUDA"
        device_description_str: "{figures.device_kind}"
        dnn_version_info {{ major: 9 minor: 10 }}
        runtime_version {{ major: 12 minor: 8 }}
        gpu_device_info {{
          cuda_compute_capability {{ major: {gpu.capability[0]} minor: {gpu.capability[1]} }}
          core_count: {gpu.processors}
          fpus_per_core: {gpu.lanes}
          clock_rate_ghz: {gpu.clock}
          device_memory_size: {figures.memory}
          memory_bandwidth: {int(figures.bandwidth)}
          l2_cache_size: {gpu.l2}
          shared_memory_per_core: {gpu.shared}
          shared_memory_per_block: {48 << 10}
          shared_memory_per_block_optin: {gpu.shared - (1 << 10)}
          registers_per_core_limit: {64 << 10}
          registers_per_block_limit: {64 << 10}
          threads_per_warp: 32
          threads_per_block_limit: 1024
          threads_per_core_limit: 2048
          block_dim_limit_x: {(1 << 31) - 1}
          block_dim_limit_y: {(1 << 16) - 1}
          block_dim_limit_z: {(1 << 16) - 1}
        }}
    """


@dataclasses.dataclass(frozen=True)
class TooLarge:
    """Bytes a program needs on each device, and what the compiler would let it have."""

    needed: int
    usable: int


_REFUSALS = (
    r"total memory required for HLO temporaries \(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)",
    r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm",
)


def too_large(error: Exception) -> TooLarge | None:
    """Reads the TPU compiler's refusal of a program that does not fit; None for any other error.

    It counts arguments and results among its "temporaries". XLA for NVIDIA refuses nothing: `memory_of` what it compiled tells.
    """
    text = str(error)
    found = next(filter(None, (re.search(pattern, text) for pattern in _REFUSALS)), None)
    if "RESOURCE_EXHAUSTED" not in text or found is None:
        return None
    needed, usable = (int(float(found[i]) * 1024 ** " KMGT".index(found[i + 1] or " ")) for i in (1, 3))
    return TooLarge(needed, usable)
