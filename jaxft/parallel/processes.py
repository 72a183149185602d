"""What the processes of one program tell each other outside of compiled programs, and what they do when one is lost.

They speak through the key-value store of JAX's distributed runtime: nothing is compiled, and a thread may do it while the main
thread waits for a collective that will never end.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

import jax
from jax._src import distributed

from jaxft.errors import JaxftError

Value = TypeVar("Value")

#: Exit code of a process that ends because another one was lost: EX_UNAVAILABLE. Whoever started the job starts it again. Where
#: another one failed, a process ends with the code of that one: starting again would not help.
LOST = 69
#: Milliseconds to wait for what another process has to say. That it was lost is found out sooner.
_LONG = 24 * 3600 * 1000
_turns = itertools.count()


def _store() -> Any:
    """The key-value store. JAX gives it no public name (jax 0.10 to 0.12 have it here)."""
    return distributed.global_state.client


def process_index() -> int:
    """Which of the processes this is."""
    return jax.process_index()


def is_first() -> bool:
    """Whether this is the process that writes logs, checkpoints' records and reports."""
    return jax.process_index() == 0


def from_first(function: Callable[[], Value]) -> Value:
    """Runs `function` in the first process, and gives all what it returned (JSON data) or raised (a JaxftError or OSError).

    All processes must call it, in the same order.
    """
    if jax.process_count() == 1:
        return function()
    key = f"jaxft/first/{next(_turns)}"
    if is_first():
        try:
            value = function()
        except (JaxftError, OSError) as error:
            kind = "JaxftError" if isinstance(error, JaxftError) else "OSError"
            _store().key_value_set(key, json.dumps({"error": kind, "errno": getattr(error, "errno", None), "text": str(error)}))
            raise
        _store().key_value_set(key, json.dumps({"value": value}))
        return value
    found = json.loads(_store().blocking_key_value_get(key, _LONG))
    if found.get("error") == "JaxftError":
        raise JaxftError(found["text"])
    if "error" in found:
        raise OSError(found["errno"], found["text"])
    value = found["value"]
    return value


def everyone(fine: bool) -> bool:
    """Whether all processes say yes. All must call it, in the same order."""
    if jax.process_count() == 1:
        return fine
    turn = next(_turns)
    _store().key_value_set(f"jaxft/everyone/{turn}/{jax.process_index()}", "yes" if fine else "no")
    keys = [f"jaxft/everyone/{turn}/{other}" for other in range(jax.process_count())]
    answers = [_store().blocking_key_value_get(key, _LONG) for key in keys]
    return all(answer == "yes" for answer in answers)


def check_same(what: str, value: str) -> None:
    """Raises JaxftError unless all processes call it with the same value. Returns when all have."""
    expected = from_first(lambda: value)
    if not everyone(value == expected) and value != expected:
        raise JaxftError(
            f"process {jax.process_index()} has {what} {value}, the first process {expected}: all must have the same"
        )


class _Watch:
    """A thread that gives a sign of life, looks for the others', and ends this process when one is lost or has failed."""

    def __init__(self, lost_after: float):
        self._lost_after = lost_after
        self._pause = min(1.0, lost_after / 8)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jaxft-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        seen: dict[int, tuple[str, float]] = {}
        own, others = jax.process_index(), set(range(jax.process_count()))
        for number in itertools.count():
            try:
                _store().key_value_set(f"jaxft/alive/{own}", str(number), allow_overwrite=True)
                signs = dict(_store().key_value_dir_get("jaxft/alive/"))
                ended = _ended()
            except RuntimeError as error:
                if not self._over.is_set():
                    _exit(LOST, f"process 0 cannot be reached any more ({str(error).splitlines()[0][:120]}){_AGAIN}")
                return
            if ended and not self._over.is_set():
                leave(LOST, "another process ended")
            now = time.monotonic()
            for other in others:
                sign = signs.get(f"jaxft/alive/{other}", "")
                if other not in seen or seen[other][0] != sign:
                    seen[other] = (sign, now)
                elif sign != _FINISHED and now - seen[other][1] > self._lost_after:
                    leave(LOST, f"process {other} has given no sign of life for {self._lost_after:g} s: it is lost{_AGAIN}")
            if self._over.wait(self._pause):
                _store().key_value_set(f"jaxft/alive/{own}", _FINISHED, allow_overwrite=True)
                return


_FINISHED = "finished"
_AGAIN = "; start the job again: it goes on from the newest checkpoint"
_watch: _Watch | None = None


def watch_processes(lost_after: float) -> None:
    """Begins to watch the processes of this program; once. When one is lost or fails, all others end with a line and code 69.

    An error that nobody catches ends this process at once too: JAX itself would wait for the others, which wait for it.
    """
    global _watch
    if _watch is not None:
        return
    _watch = _Watch(lost_after)
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if is_broken_connection(error):
            leave(LOST, f"the connection to another process broke ({str(error).splitlines()[0][:160]}){_AGAIN}")
        before(kind, error, trace)
        leave(1, f"{kind.__name__}: {error}")

    sys.excepthook = hook


def are_watched() -> bool:
    """Whether this is one of several processes that `watch_processes` looks after."""
    return _watch is not None


def end_watch() -> None:
    """All processes have come to the end of the program."""
    global _watch
    if _watch is not None:
        _watch.stop()
        _watch = None


@functools.cache
def _leaving() -> threading.Lock:
    return threading.Lock()


def is_broken_connection(error: BaseException) -> bool:
    """Whether an error of a collective says that another process is gone. Its class differs by where the error comes up."""
    text = str(error)
    return isinstance(error, RuntimeError | ValueError) and any(
        sign in text for sign in ("Gloo", "NCCL", "UNAVAILABLE", "Connection reset", "Connection closed")
    )


def _ended() -> list[tuple[int, int, str]]:
    """What other processes that ended by themselves have said: which one, its exit code, why."""
    found = dict(_store().key_value_dir_get("jaxft/ended/"))
    said = [(int(key.rpartition("/")[2]), *text.partition(" ")[::2]) for key, text in found.items()]
    return [(other, int(code), line) for other, code, line in said if other != jax.process_index()]


def leave(code: int, line: str) -> None:
    """Ends this process of several, at once; the others learn why. In a program of one process it returns.

    Args:
      code: exit code. For `LOST` it is that of a process which had ended by itself before, and so is the reason.
      line: what the others are told, and the user, if the code is `LOST`: else it was said already.
    """
    if _watch is None:
        return
    _leaving().acquire()  # the first one speaks; never released
    own, told = jax.process_index(), code != LOST
    try:
        if code == LOST and (before := _ended()):
            other, code, why = before[0]
            line = f"process {other} ended: {why}"
        _store().key_value_set(f"jaxft/ended/{own}", f"{code} {' '.join(line.split())[:500]}", allow_overwrite=True)
    except RuntimeError as error:
        line += f" ({str(error).splitlines()[0][:80]})"
    if own == 0:
        time.sleep(3 * _watch._pause)  # the store ends with this process: the others must have read it
    _exit(code, "" if told else line)


def _exit(code: int, line: str) -> None:
    if line:
        print(f"jaxft: process {jax.process_index()}: {line}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
