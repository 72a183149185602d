"""Memory of a compiled step, and whether a device has it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from jaxft.errors import JaxftError

#: Of a device's memory, what a step may take: allocators fragment, and other things need some.
SHARE = 0.9


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes:
      arguments: state and batch.
      outputs: new state and metrics.
      aliased: the part of the outputs that takes the donated arguments' place.
      temporaries: what lives in between: activations, gradients, work space.
    """

    arguments: int
    outputs: int
    aliased: int
    temporaries: int

    @property
    def peak(self) -> int:
        return self.arguments + self.outputs - self.aliased + self.temporaries


def memory_of(compiled: Any) -> Memory | None:
    """What the compiler says a compiled function needs; None where it does not."""
    found = compiled.memory_analysis()
    if found is None:
        return None
    return Memory(
        arguments=found.argument_size_in_bytes,
        outputs=found.output_size_in_bytes,
        aliased=found.alias_size_in_bytes,
        temporaries=found.temp_size_in_bytes,
    )


def peak_bytes(compiled: Any) -> int | None:
    """Bytes a compiled function needs on one device (arguments, results not aliased to them, temporaries), if known."""
    memory = memory_of(compiled)
    return None if memory is None else memory.peak


@dataclasses.dataclass(frozen=True)
class Limit:
    """Bytes one device can give. `certain` for an accelerator, which then fails; a computer may swap, or free a cache."""

    nbytes: int
    certain: bool


def device_limit(root: Path = Path("/")) -> Limit | None:
    """What each device of this process has: an accelerator's own memory, or an equal share of what the computer, or its
    container, has free now; None where neither is known."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return Limit(stats["bytes_limit"], certain=True)
    known = [free for free in (_free(root), *_cgroups(root)) if free is not None]
    if jax.default_backend() != "cpu" or not known:
        return None
    return Limit(max(min(known), 0) // jax.local_device_count(), certain=False)


def _free(root: Path) -> int | None:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pages = "SC_PHYS_PAGES"
        return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE") if pages in os.sysconf_names else None


def _cgroups(root: Path) -> list[int]:
    """Bytes a container may still take, by control groups version 2 and 1."""
    found = []
    for limit, usage in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        try:
            most, used = ((root / "sys/fs/cgroup" / name).read_text().strip() for name in (limit, usage))
        except OSError:
            continue
        if most.isdigit():  # "max" is no limit
            found.append(int(most) - int(used))
    return found


def fits(memory: Memory, limit: Limit) -> bool:
    return memory.peak <= SHARE * limit.nbytes


def checked(step: Any, say: Callable[[str], None], *, where: str) -> Callable[..., Any]:
    """A jitted step that looks, before it is first run, whether the device has the memory.

    It is compiled once: JAX runs the executable that was looked at.

    Args:
      step: jitted.
      say: is given a line where the memory may not suffice.
      where: "phase1": the line and the error begin with it.

    Raises:
      JaxftError: an accelerator does not have the memory. The first call raises it, before anything is run.
    """
    looked = False

    @functools.wraps(step)
    def call(*arguments: Any) -> Any:
        nonlocal looked
        if not looked:
            looked = True
            memory, limit = memory_of(step.lower(*arguments).compile()), device_limit()
            if memory is not None and limit is not None:
                if not limit.certain:  # the arguments are part of what is in use already
                    limit = dataclasses.replace(limit, nbytes=limit.nbytes + memory.arguments)
                _refuse_or_warn(memory, limit, say, where)
        return step(*arguments)

    return call


@contextlib.contextmanager
def explained_shortage() -> Iterator[None]:
    """Turns an allocator's error, of a device or of the computer, into what to change.

    Raises:
      JaxftError: in place of JAX's RESOURCE_EXHAUSTED.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        line = str(error).splitlines()[0].removeprefix("RESOURCE_EXHAUSTED: ")[:160]
        raise JaxftError(
            f"the memory of a device does not suffice ({line}). Raise config.train.accum_steps, set config.model.remat=all or "
            "config.model.dtype='bfloat16', split parameters with config.parallel.mesh='fsdp=*', or lower "
            "config.input.batch_size; `jaxft explain-step` with this config says what each brings"
        ) from error


def _refuse_or_warn(memory: Memory, limit: Limit, say: Callable[[str], None], where: str) -> None:
    if fits(memory, limit):
        return
    line = (
        f"{where}: a step needs {gigabytes(memory.peak)} of the {gigabytes(limit.nbytes)} each device has; "
        "`jaxft explain-step` with this config says what to change"
    )
    if limit.certain and memory.peak > limit.nbytes:
        raise JaxftError(line)
    say(line)


def gigabytes(nbytes: float) -> str:
    """1.5e9 as "1.50 GB", 2e6 as "2 MB"."""
    return (
        f"{nbytes / 1e9:.2f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:,.0f} MB" if nbytes >= 1e7 else f"{nbytes / 1e6:.2f} MB"
    )
