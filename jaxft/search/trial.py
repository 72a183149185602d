"""One trial, in a process of its own: an ordinary run that asks after each evaluation whether to go on.

`jaxft.search.process` starts it. Its standard input brings what to run, pickled, then a byte for each evaluation that was
told; where the input ends the run is to stop. What it tells, one JSON object a line, goes to a pipe of its own: standard
output is the run's.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import signal
import sys
import threading
from collections.abc import Mapping
from io import RawIOBase
from typing import Any

from jaxft.errors import JaxftError, SaveError

GO_ON, STOP = b"y", b"n"


def main() -> None:
    """Runs what standard input says; tells into the file descriptor of the first argument."""
    tell = os.fdopen(int(sys.argv[1]), "w")
    orders = os.fdopen(0, "rb", buffering=0)  # Python would wait at its end for a thread that reads through a buffer
    config, workdir = pickle.load(orders)
    answers: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_listen, args=(orders, answers), daemon=True).start()

    def say(**told: Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # nobody is there any more: the end of the input says so too
            print(json.dumps(told), file=tell, flush=True)

    def go_on(step: int, figures: Mapping[str, float]) -> bool:
        say(step=step, figures=dict(figures))
        return answers.get() == GO_ON

    from jaxft.run import train

    try:
        result = train(config, workdir, test=False, go_on=go_on)
    except (JaxftError, SaveError) as error:
        say(error=" ".join(str(error).split()), saving=isinstance(error, SaveError))
        sys.exit(f"jaxft: {error}")
    if result.after is not None:
        say(best_step=result.best_step, figures=result.after.figures)


def _listen(orders: RawIOBase, answers: queue.Queue[bytes]) -> None:
    while answer := orders.read(1):
        answers.put(answer)
    answers.put(STOP)
    os.kill(os.getpid(), signal.SIGTERM)  # the run saves and ends after the step it is in
