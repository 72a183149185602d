"""What each command does, given its parsed options. Each returns the exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxft import models
from jaxft.cli.config import UsageError, read_config
from jaxft.explain import explain_step
from jaxft.inspect import inspect_config
from jaxft.predict import evaluate_run, format_predictions, predict_files
from jaxft.run import train as run_train
from jaxft.weights import convert_file, fetch
from jaxft.workdir import load_run


def train(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    from jaxft.cli.main import FINISHED, INTERRUPTED

    result = run_train(read_config(options.config, overrides), options.workdir, resume=options.resume)
    return FINISHED if result.status == "finished" else INTERRUPTED


def inspect(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    print(inspect_config(read_config(options.config, overrides), every_parameter=options.params))
    return 0


def explain(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    memory = None if options.memory_gb is None else options.memory_gb * 1e9
    found = explain_step(read_config(options.config, overrides), phase=options.phase, memory=memory, run=options.run)
    print(found.to_json() if options.json == "-" else found)
    if options.json and options.json != "-":
        _write(options.json, found.to_json())
    return 0


def _write(file: str, text: str) -> None:
    try:
        Path(file).write_text(text)
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}") from error


def eval(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    judged = evaluate_run(options.workdir, split=options.split, data=options.data, batch_size=options.batch_size)
    print(judged.to_json() if options.json else judged)
    return 0


def predict(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    tuned = load_run(options.workdir)
    predictions = predict_files(tuned, options.paths, batch_size=options.batch_size)
    text = format_predictions(predictions, tuned.class_names, tuned.task, style=options.format, top=options.top)
    if options.output:
        _write(options.output, text)
    else:
        sys.stdout.write(text)
    return 0


def convert(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    report = convert_file(
        fetch(options.src), Path(options.dst), model=options.model, to=options.to, overwrite=options.overwrite
    )
    print(report)
    return 0


def list_networks(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    names = models.list_models(options.pattern)
    if not names:
        raise UsageError(f"no network is called '{options.pattern}'; `jaxft models` lists all")
    rows = []
    for name in names:
        rows.append((name, ", ".join(record.tag for record in models.pretrained_records(name)) or "-"))
    width = max(len(name) for name, _ in rows)
    for name, tags in rows:
        print(f"{name.ljust(width)}  {tags}")
    return 0


COMMANDS = {
    "train": train,
    "eval": eval,
    "predict": predict,
    "inspect": inspect,
    "explain-step": explain,
    "convert": convert,
    "models": list_networks,
}
