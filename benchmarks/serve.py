"""The worker's half of the line protocol: one JSON request a line on stdin, one JSON answer a line on stdout.

Imports the standard library alone, since a worker runs in the environment of the library that it measures. A worker is a
script that calls `serve` with the functions that know that library. The requests:

    {"do": "about"}                         -> {"ok": {"versions": {...}, "cores": 2}}
    {"do": "peak"}                          -> {"ok": {"flops": f32 matmul, FLOP/s}}
    {"do": "prepare", "work": {...}}        -> {"ok": {"id": 1, "images": 64, "flops": ..., "compile_seconds": ...}}
    {"do": "time", "id": 1, "calls": 10}    -> {"ok": {"seconds": 1.23}}
    {"do": "memory"}                        -> {"ok": {"bytes": the most that was resident}}
    {"do": "drop", "id": 1}                 -> {"ok": {}}

Instead of "ok" an answer may hold "missing", a sentence: this library has no such network, variant or part; or "failed", a
traceback. The worker ends where its stdin ends.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, TextIO


class Missing(Exception):
    """This library has no such work; the message is a sentence."""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A piece of work, compiled and called at least once.

    Attributes:
      run: makes so many calls, waits for the last, and gives the seconds they took.
      images: examples a call.
      flops: floating-point operations a call as the library itself counts them, or None where it cannot.
      compile_seconds: from asking for the work until its first call had ended, less a usual call.
    """

    run: Callable[[int], float]
    images: int
    flops: float | None
    compile_seconds: float


def timed(call: Callable[[], Any], wait: Callable[[Any], Any] = lambda _: None) -> Callable[[int], float]:
    """A `run` that makes `call` again and again, and `wait`s for what the last one gave."""

    def run(calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            found = call()
        wait(found)
        return time.perf_counter() - start

    return run


def warmed(run: Callable[[int], float], images: int, flops: float | None, started: float) -> Prepared:
    """Calls `run` until it is warm; all since `started` (`time.perf_counter()`) but a usual call was compiling."""
    run(1)
    first = time.perf_counter() - started
    usual = min(run(1), run(1))
    return Prepared(run, images, flops, max(first - usual, 0.0))


def matmul_peak(make: Callable[[int], Callable[[], Any]]) -> float:
    """FLOP/s of the fastest product of two f32 matrices [size, size] in a second of trying, as `jaxft.bench` measures it.

    `make(size)` gives what multiplies them and waits.
    """
    best = 0.0
    for size in (1024, 2048):
        multiply = make(size)
        multiply()
        end = time.perf_counter() + 1.0
        while time.perf_counter() < end:
            start = time.perf_counter()
            multiply()
            best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def serve(
    prepare: Callable[[dict[str, Any]], Prepared],
    *,
    versions: Callable[[], dict[str, str]],
    peak: Callable[[], float] | None = None,
) -> None:
    """Answers requests until stdin ends. What the library prints goes to stderr: stdout is for answers alone.

    A worker whose work is no arithmetic has no `peak`.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    works: dict[int, Prepared] = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer: dict[str, Any] = {"ok": _answer(request, works, prepare, versions, peak)}
        except Missing as missing:
            answer = {"missing": str(missing)}
        except Exception:
            answer = {"failed": traceback.format_exc(limit=-6)}
        _say(answers, answer)


def _answer(
    request: dict[str, Any],
    works: dict[int, Prepared],
    prepare: Callable[[dict[str, Any]], Prepared],
    versions: Callable[[], dict[str, str]],
    peak: Callable[[], float] | None,
) -> dict[str, Any]:
    match request["do"]:
        case "about":
            cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
            return {"versions": {"python": sys.version.split()[0], **versions()}, "cores": len(cores)}
        case "peak":
            if peak is None:
                raise Missing("the peak of its arithmetic says nothing of this work")
            return {"flops": peak()}
        case "prepare":
            work = prepare(request["work"])
            number = max(works, default=0) + 1
            works[number] = work
            facts = {"images": work.images, "flops": work.flops, "compile_seconds": work.compile_seconds}
            return {"id": number, **facts}
        case "time":
            return {"seconds": works[request["id"]].run(request["calls"])}
        case "memory":
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            return {"bytes": most if sys.platform == "darwin" else most * 1024}
        case "drop":
            del works[request["id"]]
            gc.collect()
            return {}
        case other:
            raise ValueError(f"no request is called '{other}'")


def _say(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
