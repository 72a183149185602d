"""What an image costs jaxft for each batch and image size: training, head-only training and evaluation.

    python benchmarks/cost_by_size.py --model=resnet50

Each size and part has a worker of its own, which goes from small batches to large ones until the next would take too long or
too much memory. See docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import results
from alternate import Entry, MissingWorkError, Worker, WorkerError, spread, start, use_cores, workers
from compare import request, run
from workloads import PARTS, Workload

#: What names a row of the result file.
KEY = ("model", "size", "part", "batch", "threads")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Seconds an image of jaxft by batch and size.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated")
    parser.add_argument("--sizes", default="32,64,96,128,160,224", help="pixels, comma-separated")
    parser.add_argument("--batches", default="1,4,16,64,256", help="comma-separated")
    parser.add_argument("--turns", type=int, default=3, help="timings of each cell")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a timing")
    parser.add_argument("--call-seconds", type=float, default=20.0, help="no batch whose call is expected to take longer")
    parser.add_argument("--memory", type=float, default=0.6, help="no batch expected to need more than this share of memory")
    parser.add_argument("--threads", type=int, default=2, help="cores")
    parser.add_argument("--out", type=Path, default=results.RESULTS / "cost_by_size.json", help="other rows in it stay")
    return parser.parse_args()


def expected(points: Sequence[tuple[int, float]], batch: int) -> float:
    """The line through the last two (batch, value) points, at `batch`; through fewer, minus infinity: nothing is known."""
    if len(points) < 2:
        return -math.inf
    (before, low), (last, high) = points[-2:]
    return high + (high - low) / (last - before) * (batch - last)


def column(options: argparse.Namespace, worker: Worker, size: int, part: str, facts: dict[str, Any]) -> None:
    """Measures the batches of one size and part, keeping each as it ends."""
    budget = options.memory * results.installed_memory()
    seconds: list[tuple[int, float]] = []
    resident: list[tuple[int, float]] = []
    for batch in sorted(int(number) for number in options.batches.split(",")):
        if expected(seconds, batch) > options.call_seconds:
            return print(f"{size} px {part} batch {batch}: left out, a call would take more than {options.call_seconds:g} s")
        if expected(resident, batch) > budget:
            return print(f"{size} px {part} batch {batch}: left out, it would need more than {budget / 2**30:.1f} GiB")
        workload = Workload(options.model, size, batch)
        runner = start(Entry(worker, "default", request(workload, part, "default", options.threads)), options.seconds)
        cost = [1 / runner.turn() for _ in range(options.turns)]
        seconds.append((batch, min(cost) * batch))
        resident.append((batch, worker.ask("memory")["bytes"]))
        runner.drop()
        measured = {
            "model": options.model,
            "size": size,
            "part": part,
            "batch": batch,
            "dtype": "float32",
            "seconds_per_image": spread(cost),
            "flops_per_image": None if runner.flops is None else runner.flops / batch,
            "compile_seconds": runner.compile_seconds,
            "resident_bytes": resident[-1][1],
            **facts,
        }
        results.merge(options.out, [measured], KEY)
        print(f"{size:>4} px {part:<6} batch {batch:>4}: {1000 * spread(cost)['median']:>9.2f} ms an image", flush=True)
    return None


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    use_cores(options.threads)
    code = 0
    for part in options.parts.split(","):
        for size in (int(number) for number in options.sizes.split(",")):
            try:
                with workers({"jaxft": (sys.executable, "jaxft_worker.py")}) as started:
                    worker = started["jaxft"]
                    facts = {"versions": worker.ask("about")["versions"], **results.conditions(options.threads)}
                    column(options, worker, size, part, facts)
            except (WorkerError, MissingWorkError) as error:
                print(f"{size} px {part} stopped: {error}", file=sys.stderr, flush=True)
                code = 1
    print(f"kept in {options.out}")
    return code


if __name__ == "__main__":
    run(main)
