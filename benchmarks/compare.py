"""What the comparisons share: the command line, one contest after the other, and the file that keeps each as it ends."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import results
from alternate import Entry, MissingWorkError, Worker, WorkerError, contest, use_cores, workers
from workloads import PARTS, Workload, chosen

from jaxft.errors import JaxftError

#: side -> (python, script)
Commands = dict[str, tuple[str, str]]


def arguments(description: str, workloads: Sequence[Workload], out: str) -> argparse.ArgumentParser:
    """The flags of every comparison."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    names = ", ".join(workload.name for workload in workloads)
    parser.add_argument("--workloads", help=f"comma-separated, of {names}; without it all")
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated")
    parser.add_argument("--rounds", type=int, default=12, help="turns of each side")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a turn")
    parser.add_argument("--threads", type=int, default=2, help="cores, and threads, of each side")
    parser.add_argument("--out", type=Path, default=results.RESULTS / out, help="the result file; other rows in it stay")
    return parser


def request(workload: Workload, part: str, variant: str, threads: int) -> dict[str, Any]:
    """What a worker is asked to prepare."""
    return {
        "model": workload.model,
        "size": workload.size,
        "batch": workload.batch,
        "classes": workload.classes,
        "part": part,
        "variant": variant,
        "threads": threads,
    }


def compare(
    options: argparse.Namespace,
    workloads: Sequence[Workload],
    commands: Callable[[Workload], Commands],
    variants: Callable[[str, str], Sequence[str]],
    facts: Mapping[str, Any],
) -> int:
    """Runs the chosen contests, each with new workers, and keeps each row as soon as it is measured.

    Args:
      options: of `arguments`.
      workloads: what can be chosen.
      commands: the workers for a workload; jaxft's first.
      variants: (side, part) -> the variants to try.
      facts: go into every row.

    Returns:
      The exit code: 1 where something failed, 0 otherwise, also where a library has no such network.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # workers end with this process
    parts = options.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        raise JaxftError(f"no part is called '{sorted(unknown)[0]}'; there are {', '.join(PARTS)}")
    selected = chosen(options.workloads and options.workloads.split(","), workloads)
    use_cores(options.threads)
    rows, code = [], 0
    for workload in selected:
        for part in parts:
            try:
                with workers(commands(workload)) as started:
                    row = _row(options, workload, part, started, variants, facts)
            except MissingWorkError as missing:
                print(f"{workload.name} {part} skipped: {missing}", flush=True)
                continue
            except WorkerError as error:
                print(f"{workload.name} {part} failed: {error}", file=sys.stderr, flush=True)
                code = 1
                continue
            results.merge(options.out, [row])
            rows.append(row)
            print(results.table([row]), flush=True)
    if len(rows) > 1:
        print("\n" + results.table(rows))
    if rows:
        print(f"\nkept in {options.out}")
    return code


def _row(
    options: argparse.Namespace,
    workload: Workload,
    part: str,
    started: Mapping[str, Worker],
    variants: Callable[[str, str], Sequence[str]],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    about = results.describe(started)
    entries = {
        side: [Entry(worker, name, request(workload, part, name, options.threads)) for name in variants(side, part)]
        for side, worker in started.items()
    }
    sides, ratios = contest(entries, rounds=options.rounds, seconds=options.seconds)
    for side in sides.values():
        for variant, why in side.failed.items():
            print(f"{workload.name} {part}: {variant} left out: {why.splitlines()[-1]}", file=sys.stderr)
    measured = {"rounds": options.rounds, "seconds": options.seconds, **results.conditions(options.threads), **facts}
    return results.row(workload, part, sides, ratios, about, **measured)


def run(main: Callable[[], int]) -> None:
    """Ends the process with `main`'s code; what a user can mend is one line."""
    try:
        sys.exit(main())
    except (JaxftError, WorkerError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
