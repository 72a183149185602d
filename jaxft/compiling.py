"""What JAX compiles: kept on disk for the next process, and told when it is compiled twice."""

from __future__ import annotations

import dataclasses
import errno
import inspect
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax import monitoring

from jaxft.weights import cache_folder

#: JAX's event for every executable it makes or loads from the cache.
_COMPILED = "/jax/core/compile/backend_compile_duration"
#: Beyond this the least recently used executables are removed. The step of a ResNet-50 takes one megabyte.
CACHE_BYTES = 4 << 30
_DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


def keep_compiled() -> str:
    """Makes JAX keep compiled functions in the folder `compiled` of the user's cache, `~/.cache/jaxft`.

    What the user set is left as it is: `JAX_COMPILATION_CACHE_DIR` is another folder, `JAX_ENABLE_COMPILATION_CACHE=false`
    none. JAX's keys cover the program, JAX's version, its flags, and the processor with its features, so a home folder may be
    shared by different machines.

    Returns:
      "", or one line that says why nothing is kept.
    """
    config: Any = jax.config  # its options are attributes that no type knows
    chosen = "JAX_COMPILATION_CACHE_DIR" in os.environ or config.jax_compilation_cache_dir
    if chosen or not config.jax_enable_compilation_cache:
        return ""
    try:
        folder = cache_folder() / "compiled"
        # For the user alone: an executable is code, and whoever may write here may run it.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        _remove_torn(folder)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        return f"compiled steps are not kept for the next run ({error}); JAX_COMPILATION_CACHE_DIR names another folder"
    config.update("jax_compilation_cache_max_size", CACHE_BYTES)
    config.update("jax_compilation_cache_dir", str(folder))
    return ""


def deterministic() -> str:
    """Makes what is compiled from now on give the same bits in every run, also on GPUs. To be called before JAX computes.

    CPUs and TPUs do so anyway. On GPUs XLA else sums with atomic operations, in any order, and takes the kernels that happen
    to be the fastest when it tries them.

    Returns:
      One line that says what was set and what it costs.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if _DETERMINISTIC not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_DETERMINISTIC}".strip()
    return (
        f"deterministic: {_DETERMINISTIC}. On GPUs that costs the trying out of kernels and all atomic sums; how much is for "
        "`jaxft bench` to say, with XLA_FLAGS set so and without"
    )


def _remove_torn(folder: Path) -> None:
    """Removes what a killed process wrote half. JAX writes an entry, then its time of use, and trips over one without it."""
    used = {file.name.removesuffix("-atime") for file in folder.glob("*-atime")}
    long_ago = time.time() - 600  # no process is still writing it
    for file in folder.glob("*-cache") if used else ():
        if file.name.removesuffix("-cache") not in used and file.stat().st_mtime < long_ago:
            file.unlink(missing_ok=True)


@dataclasses.dataclass(frozen=True)
class Recompile:
    """A function that was compiled once more: which, how long that took, and what had changed."""

    name: str
    seconds: float
    changes: tuple[str, ...]

    def __str__(self) -> str:
        more = f" (and {len(self.changes) - 3} more)" if len(self.changes) > 3 else ""
        cause = "; ".join(self.changes[:3]) + more or "no argument changed its shape, dtype or place"
        return f"{self.name} was compiled again in {self.seconds:.1f} s: {cause}"


class Compiles:
    """Watches jitted functions: counts what they compile, and notes when one is compiled again.

    Built on `jax.monitoring`, it costs a step nothing: only a compilation makes it look at the arguments.
    """

    def __init__(self) -> None:
        self._count, self._seconds = 0, 0.0
        self._again: list[Recompile] = []
        self._thread: int | None = None
        self._ended: float | None = None
        monitoring.register_event_duration_secs_listener(self._listen)

    def close(self) -> None:
        monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == _COMPILED and threading.get_ident() == self._thread:
            self._ended = time.perf_counter()

    def watch(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """The jitted `function`, watched. Its first compilation is as it should be, each later one is a `Recompile`."""
        names = tuple(inspect.signature(function).parameters)
        known: dict[str, tuple[str, str]] | None = None

        def call(*arguments: Any) -> Any:
            nonlocal known
            self._thread, self._ended = threading.get_ident(), None
            start = time.perf_counter()
            try:
                result = function(*arguments)
            finally:
                self._thread = None
            if self._ended is not None:
                seconds = self._ended - start  # tracing, lowering and compiling; not the running
                self._count, self._seconds = self._count + 1, self._seconds + seconds
                # Donated arguments are gone, but still know what they were.
                found = _describe(dict(zip(names, arguments, strict=True)))
                if known is not None:
                    self._again.append(Recompile(name, seconds, _changes(known, found)))
                known = found
            return result

        return call

    def again(self) -> list[Recompile]:
        """What was compiled again since this was last asked."""
        found, self._again = self._again, []
        return found

    def read(self) -> dict[str, float]:
        """Figures since the last reading: `compiles`, `compile_seconds`."""
        found = {"compiles": self._count, "compile_seconds": self._seconds}
        self._count, self._seconds = 0, 0.0
        return found


def _describe(arguments: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Path of every array -> its type and its place."""
    leaves = jax.tree_util.tree_flatten_with_path(arguments)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (str(jax.typeof(leaf)), str(getattr(leaf, "sharding", "host")))
        for path, leaf in leaves
    }


def _changes(before: dict[str, tuple[str, str]], after: dict[str, tuple[str, str]]) -> tuple[str, ...]:
    found = [f"{path} is new" for path in after if path not in before]
    found += [f"{path} is gone" for path in before if path not in after]
    for path, (kind, place) in after.items():
        old_kind, old_place = before.get(path, (kind, place))
        if kind != old_kind:
            found.append(f"{path} was {old_kind}, is {kind}")
        elif place != old_place:
            found.append(f"{path} was on {old_place}, is on {place}")
    return tuple(found)
