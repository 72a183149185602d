"""What a result was measured on, and the most that machine can do."""

from __future__ import annotations

import dataclasses
import datetime
import fnmatch
import functools
import importlib.metadata
import os
import platform
import resource
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp

#: Dense peaks in TFLOP/s a chip, by jax's `device_kind` (a glob), as their makers publish them: (float32, bfloat16).
#: float32 is what JAX computes it in by default: TF32 on NVIDIA from Ampere on, bfloat16 passes on TPU. None: not published.
#: TPU: cloud.google.com/tpu/docs, the pages of each generation. NVIDIA: the data sheets of each card; where a sheet gives
#: figures with sparsity, half of them.
PUBLISHED: dict[str, tuple[float | None, float | None]] = {
    "TPU v4": (275, 275),
    "TPU v5 lite": (197, 197),
    "TPU v5e": (197, 197),
    "TPU v5": (459, 459),
    "TPU v5p": (459, 459),
    "TPU v6 lite": (918, 918),
    "TPU v6e": (918, 918),
    "NVIDIA A100*": (156, 312),
    "NVIDIA H100 PCIe": (378, 756),
    "NVIDIA H100 80GB HBM3": (494.7, 989.4),
    "NVIDIA H200": (494.7, 989.4),
    "NVIDIA L4": (60, 121),
    "NVIDIA L40S": (183, 362),
    "NVIDIA A10": (62.5, 125),
    "NVIDIA A10G": (35, 70),
    "Tesla V100-SXM2*": (15.7, None),
    "Tesla T4": (8.1, None),
}


@dataclasses.dataclass(frozen=True)
class Peak:
    """FLOP/s that all devices of a piece of work could do, and how that is known: "published" or "measured matmul"."""

    flops: float
    origin: str


def machine() -> dict[str, str | int]:
    """Facts for a result's record: processor, devices, versions, date. Nothing that names a person, a host or a folder."""
    device = jax.devices()[0]
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count() or 1,
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "platform": device.platform,
        "device_kind": device.device_kind,
        "device_count": jax.device_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("jaxft", "jax", "jaxlib", "flax", "numpy")},
    }


def _cpu_name() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def peak_rss() -> int:
    """The most memory this process has held so far, in bytes."""
    amount = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return amount if sys.platform == "darwin" else amount * 1024  # Linux counts in KiB


def device_peak() -> int | None:
    """The most memory in use on the first device so far, in bytes; None where the backend does not tell (the CPU's)."""
    found = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return None if found is None else int(found)


def published_peak(kind: str, dtype: str) -> float | None:
    """FLOP/s of one device of jax's `device_kind` as published, or None where the table has none."""
    column = {"float32": 0, "bfloat16": 1}.get(dtype)
    for pattern, peaks in PUBLISHED.items():
        if column is not None and fnmatch.fnmatchcase(kind, pattern):
            value = peaks[column]
            return None if value is None else value * 1e12
    return None


def peak(dtype: str, devices: int) -> Peak:
    """The peak of `devices` devices: published for accelerators the table knows, else measured here."""
    device = jax.devices()[0]
    found = published_peak(device.device_kind, dtype)
    if found is not None:
        return Peak(found * devices, "published")
    # Devices of the CPU platform are one machine's cores, shared: more of them can do no more.
    return Peak(matmul_peak(dtype) * (1 if device.platform == "cpu" else devices), "measured matmul")


@functools.cache
def matmul_peak(dtype: str, sizes: tuple[int, ...] | None = None, seconds: float = 1.0) -> float:
    """FLOP/s of the fastest square matrix product on one device, warm, the best of many; measured once a process.

    Args:
      dtype: of the factors and the product.
      sizes: sides tried; None is 1024 and 2048 on a CPU, 4096 and 8192 elsewhere.
      seconds: each size is tried again and again for so long: a disturbance must not lower the peak, which would flatter
        every share of it.
    """
    sides = sizes or ((1024, 2048) if jax.devices()[0].platform == "cpu" else (4096, 8192))
    return max(_matmul_rate(dtype, side, seconds) for side in sides)


def _matmul_rate(dtype: str, side: int, seconds: float) -> float:
    factor = jax.random.normal(jax.random.key(0), (side, side), jnp.dtype(dtype))
    multiply = jax.jit(jnp.matmul)
    jax.block_until_ready(multiply(factor, factor))
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        start = time.perf_counter()
        jax.block_until_ready(multiply(factor, factor))
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best
