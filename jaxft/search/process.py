"""The process of a trial, seen from the sweep. The sweep itself asks for no devices: they are the trials'."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import selectors
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxft.errors import JaxftError
from jaxft.search.trial import GO_ON, STOP

_OFTEN = 0.2  # seconds between looks at whether to stop


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a trial's process ended.

    Attributes:
      best_step, figures: of a run that is finished, its best checkpoint's on the validation split.
      error: why there are none; "" where the run was stopped, too.
      saving: whether the error is that something could not be saved.
    """

    best_step: int | None = None
    figures: dict[str, float] = dataclasses.field(default_factory=dict)
    error: str = ""
    saving: bool = False


@dataclasses.dataclass(frozen=True)
class Stopping:
    """What a sweep's signals ask of its trials: to save and stop; to end at once."""

    asked: threading.Event = dataclasses.field(default_factory=threading.Event)
    at_once: threading.Event = dataclasses.field(default_factory=threading.Event)


def run_trial(
    config: ConfigDict,
    workdir: Path,
    log: Path,
    *,
    go_on: Callable[[int, Mapping[str, float]], bool],
    stopping: Stopping,
) -> Ended:
    """Runs a trial in a process of its own, or goes on with it.

    Args:
      config, workdir: of the run.
      log: what the run prints is added to this file.
      go_on: is given the step and the figures of each evaluation of the validation split; see `jaxft.run.train`.
      stopping: when it is asked, the run saves and stops.

    Raises:
      JaxftError: no process can be started.
    """
    read, write = os.pipe()
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", "from jaxft.search.trial import main; main()", str(write)],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                pass_fds=[write],
                start_new_session=True,  # a Ctrl-C is the sweep's: it tells its trials
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
    except OSError as error:
        os.close(read)
        raise JaxftError(f"no process for a trial could be started: {error.strerror}") from error
    finally:
        os.close(write)
    ended = Ended()
    try:
        _send(process, pickle.dumps((config, workdir)))
        for told in _told(process, read, stopping):
            if "error" in told:
                ended = Ended(error=told["error"], saving=told["saving"])
            elif "best_step" in told:
                ended = Ended(told["best_step"], told["figures"])
            else:
                _send(process, GO_ON if go_on(told["step"], told["figures"]) else STOP)
        process.wait()
    finally:
        os.close(read)
        _close(process)  # where something went wrong here, the run saves and ends
        code = process.wait()
    if not code or ended.error or stopping.asked.is_set():
        return ended
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return Ended(error=f"the process ended with {how}: {log} may say why")


def _told(process: subprocess.Popen[bytes], read: int, stopping: Stopping) -> Iterator[Any]:
    """What the process tells, until it ends."""
    waiting = b""
    with selectors.DefaultSelector() as selector:
        selector.register(read, selectors.EVENT_READ)
        while True:
            if stopping.asked.is_set():
                _close(process)
            if stopping.at_once.is_set():
                process.kill()
            if not selector.select(_OFTEN):
                continue
            content = os.read(read, 1 << 16)
            if not content:
                return
            *lines, waiting = (waiting + content).split(b"\n")
            yield from map(json.loads, lines)


def _send(process: subprocess.Popen[bytes], content: bytes) -> None:
    """A process that is gone, or was told to stop, is seen by what it tells."""
    assert process.stdin
    if process.stdin.closed:
        return
    try:
        process.stdin.write(content)
        process.stdin.flush()
    except BrokenPipeError:
        _close(process)


def _close(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin
    try:
        process.stdin.close()
    except BrokenPipeError:
        return
