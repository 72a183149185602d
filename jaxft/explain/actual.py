"""The memory a compiled step really takes, against what the compiler said."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

_PROC = Path("/proc/self")


def actual_peak(compiled: Any, state: Any, batch: Any, *, steps: int = 2) -> int | None:
    """Runs a compiled step on made-up numbers and returns the most memory it took on each device, in bytes.

    On an accelerator that is the allocator's own figure. On the CPU it is the growth of the process's resident memory, by the
    kernel's high-water mark, reset before; simulated devices share it equally. None where the system keeps no such mark.

    Args:
      compiled: of `(state, batch)`, the state donated.
      state, batch: their shapes, with shardings.
    """
    device = jax.local_devices()[0]
    make = _maker((state, batch))  # compiled before memory is looked at: compilers take some too
    before = _reset() if device.platform == "cpu" else (device.memory_stats() or {}).get("bytes_in_use")
    if before is None:
        return None
    value, example = make()
    for _ in range(steps):
        value, metrics = compiled(value, example)
    jax.block_until_ready((value, metrics))
    if device.platform == "cpu":
        return (_status("VmHWM") - before) // jax.local_device_count()
    return (device.memory_stats() or {})["peak_bytes_in_use"] - before


def _maker(shapes: Any) -> Any:
    """Compiles what makes arrays of ones, written: memory that is only reserved would not be seen."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, shapes)
    make = jax.jit(lambda: jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes), out_shardings=shardings)
    return make.lower().compile()


def _reset() -> int | None:
    """Gives free memory back, sets the high-water mark to what is left, and returns that."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        (_PROC / "clear_refs").write_text("5")
    except (OSError, AttributeError):
        return None
    return _status("VmRSS")


def _status(key: str) -> int:
    lines = (_PROC / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))
