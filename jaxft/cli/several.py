"""What the commands of several runs do: searches, streams of tasks, soups. Each returns the exit code."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from jaxft.cli.config import UsageError, read_config
from jaxft.cli.output import check_folder, show
from jaxft.continual import learn
from jaxft.search import sweep as run_sweep
from jaxft.soup import soup_runs, wise_run


def sweep(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    found = run_sweep(
        read_config(options.config, overrides),
        options.workdir,
        options.search,
        trials=options.trials,
        method=options.method,
        jobs=options.jobs,
        seed=options.seed,
        reduction_factor=options.reduction_factor,
        say=lambda line: print(line, flush=True),
    )
    print(f"\n{found}")
    if found.best is not None:
        command = found.command(found.best, options.config, list(overrides))
        print(f"\nthe best on the validation split; this opens its test split:\n{command}")
    return _ended(found.status)


def continual(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    found = learn(
        read_config(options.config, overrides),
        options.task,
        options.workdir,
        method=options.method,
        strength=options.strength,
        memory=options.memory,
        gamma=options.gamma,
        examples=options.examples,
        say=lambda line: print(line, flush=True),
    )
    print(f"\n{found}")
    return _ended(found.status)


def _ended(status: str) -> int:
    from jaxft.cli.main import FINISHED, INTERRUPTED

    if status == "finished":
        return FINISHED
    print("stopped; everything is saved: the same command goes on from there")
    return INTERRUPTED


def soup(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    check_folder(options.json)
    if options.wise is None:
        if options.start is not None:
            raise UsageError("--start is for --wise=ALPHA or --wise=sweep")
        if options.out is None:
            raise UsageError("a soup needs --out=FOLDER, a new workdir")
        found = soup_runs(options.runs, options.out, greedy=options.greedy, update_bn=options.update_bn)
    else:
        if len(options.runs) > 1 or options.greedy:
            raise UsageError("--wise takes one run, and no --greedy")
        alpha = None if options.wise == "sweep" else _alpha(options.wise)
        if alpha is not None and options.out is None:
            raise UsageError("--wise=ALPHA needs --out=FOLDER, a new workdir; --wise=sweep alone prints a table")
        found = wise_run(options.runs[0], options.out, alpha=alpha, start=options.start, update_bn=options.update_bn)
    show(found, options.json)
    return 0


def _alpha(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--wise is '{text}': a number between 0 and 1, e.g. --wise=0.5, or sweep") from None
