"""Keeping freed memory on the CPU, instead of getting the same pages from the kernel again in every step.

A training step on the CPU asks for its temporary buffers, some hundred megabytes, anew each time. glibc gives such blocks back
when they are freed, so each step pays for their pages again: at 224 px an elementwise operation then takes ten times longer
than the memory needs. Kept, and in pages of 2 MB, they cost nothing after the first step.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import importlib.util
import os
import pkgutil
from pathlib import Path

import jax

from jaxft.errors import JaxftError

# <malloc.h> and <sys/mman.h> of glibc and Linux.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_MADV_HUGEPAGE = 14
_PAGE = 2 << 20


def keep_heap() -> int:
    """Makes this process keep the memory it frees, if it computes on the CPU with glibc. Only the first call does anything.

    To be called before JAX computes: the threads it then starts share one heap, while those that exist keep their own. What
    is kept is the process's own peak, not more. `JAXFT_HEAP=off` leaves the heap as it is.

    Returns:
      Bytes of address space set aside in large pages (memory is used only as it is touched); 0 where nothing was done.

    Raises:
      JaxftError: `JAXFT_HEAP` is neither "on" nor "off".
    """
    wanted = os.environ.get("JAXFT_HEAP", "on")
    if wanted not in ("on", "off"):
        raise JaxftError(f"JAXFT_HEAP is '{wanted}', not 'on' or 'off'")
    return _keep() if wanted == "on" and _only_cpu() else 0


def _only_cpu(devices: Path = Path("/dev")) -> bool:
    """Whether JAX will compute on the CPU, without starting it: no other platform is installed, or its hardware is not here."""
    platforms: str | None = getattr(jax.config, "jax_platforms", None)
    if platforms:
        return platforms.split(",")[0] == "cpu"
    return not any(_is_here(name, devices) for name in _plugins())


#: Files of devices, by how the plugins' names begin. TPUs are behind either of two drivers; /dev/dxg is a GPU under WSL.
_DEVICES = {
    "libtpu": ("accel*", "accel/accel*", "vfio/[0-9]*"),
    "xla_cuda": ("nvidia[0-9]*", "nvidiactl", "dxg"),
    "xla_rocm": ("kfd",),
}


def _is_here(plugin: str, devices: Path) -> bool:
    """Whether a plugin has hardware. Compilers for hardware elsewhere (`jaxft compile`) are plugins too."""
    patterns = next((found for name, found in _DEVICES.items() if plugin.startswith(name)), None)
    return patterns is None or any(any(devices.glob(pattern)) for pattern in patterns)


def _plugins() -> set[str]:
    """What is installed that JAX computes with, by the names of its modules."""
    found = {"libtpu"} if importlib.util.find_spec("libtpu") else set()
    spec = importlib.util.find_spec("jax_plugins")
    if spec is not None and spec.submodule_search_locations is not None:
        found |= {module.name for module in pkgutil.iter_modules(spec.submodule_search_locations)}
    return found | {point.name for point in importlib.metadata.entry_points(group="jax_plugins")}


@functools.cache
def _keep() -> int:
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return 0
    # No mappings of their own for large blocks, no giving back, and one heap for all threads: blocks are used again.
    for name, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_ARENA_MAX, 1)):
        libc.mallopt(name, value)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    # The heap grown once and freed again stays the heap's; asked for here, its pages become large ones.
    size = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2 // _PAGE * _PAGE
    block = libc.malloc(size)
    if not block:  # address space is limited: the pages stay small
        return 0
    first = -(-block // _PAGE) * _PAGE
    libc.madvise(first, size - 2 * _PAGE, _MADV_HUGEPAGE)
    libc.free(block)
    return size
