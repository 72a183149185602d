"""What each command does, given its parsed options. Each returns the exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from jaxft import models
from jaxft.active import select_files
from jaxft.cli import data as data_commands
from jaxft.cli import several
from jaxft.cli.config import UsageError, read_config
from jaxft.cli.output import check_folder, show, write
from jaxft.columns import aligned
from jaxft.compiling import deterministic
from jaxft.errors import JaxftError
from jaxft.explain import compile_for, explain_step
from jaxft.export import export_run
from jaxft.inspect import inspect_config
from jaxft.parallel import gigabytes, start
from jaxft.parallel.targets import parse_target, prepare
from jaxft.predict import evaluate_run, format_predictions, predict_files
from jaxft.range_test import lr_find
from jaxft.run import train as run_train
from jaxft.verify import verify as compare_with_original
from jaxft.weights import convert_file, fetch
from jaxft.workdir import load_run


def train(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    from jaxft.cli.main import FINISHED, INTERRUPTED

    config = read_config(options.config, overrides)
    if options.deterministic:
        print(deterministic(), flush=True)
    start(options.coordinator, options.processes, options.process, lost_after=config.parallel.lost_after)
    result = run_train(config, options.workdir, strict=options.strict, test=not options.no_test)
    return FINISHED if result.status == "finished" else INTERRUPTED


def probe(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    from jaxft.probing import probe as run_probe

    check_folder(options.json)
    more = [] if options.per_class is None else [f"--config.data.per_class={options.per_class}"]
    found = run_probe(
        read_config(options.config, [*overrides, *more]),
        options.workdir,
        methods=_names(options.method or ""),
        texts=options.text,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    show(found, options.json)
    return 0


def inspect(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    print(inspect_config(_config_on(options, overrides), every_parameter=options.params))
    return 0


def explain(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    memory = None if options.memory_gb is None else options.memory_gb * 1e9
    found = explain_step(_config_on(options, overrides), phase=options.phase, memory=memory, run=options.run)
    show(found, options.json)
    return 0


def compile(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    """What does not fit is reported in full, and then an error."""
    check_folder(options.json)
    target = parse_target(options.target)
    if options.deterministic:
        print(deterministic(), file=sys.stderr, flush=True)
    prepare(target)  # before the recipe, which may compute
    found = compile_for(
        _config_on(options, overrides),
        target,
        phase=options.phase,
        remedies=options.remedies,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    show(found, options.json)
    short = [phase for phase in found.phases if not phase.fits]
    if short:
        needs = "; ".join(
            f"{one.name} needs {gigabytes(one.needed)} of {gigabytes(one.usable)} on each device" for one in short
        )
        raise JaxftError(f"the step does not fit on {target.name}: {needs}")
    return 0


def _config_on(options: argparse.Namespace, overrides: Sequence[str]) -> ConfigDict:
    """The config, on the mesh of `--mesh`."""
    more = [] if options.mesh is None else [f"--config.parallel.mesh={options.mesh}"]
    return read_config(options.config, [*overrides, *more])


def find_lr(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    for file in options.out:
        check_folder(file)
        if Path(file).suffix not in (".png", ".json"):
            raise UsageError(f"--out is '{file}': a .png for the curve, or a .json for the numbers")
    found = lr_find(
        read_config(options.config, overrides),
        phase=options.phase,
        steps=options.steps,
        min_lr=options.min_lr,
        max_lr=options.max_lr,
        rule=options.rule,
        start=options.start,
    )
    print(found)
    for file in options.out:
        if Path(file).suffix == ".png":
            found.draw(Path(file))
        else:
            write(file, found.to_json())
    return 0


def eval(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    judged = evaluate_run(
        options.workdir, split=options.split, data=options.data, batch_size=options.batch_size, tta=options.tta
    )
    print(judged.to_json() if options.json else judged)
    return 0


def predict(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    tuned = load_run(options.workdir)
    predictions = predict_files(tuned, options.paths, batch_size=options.batch_size, tta=options.tta)
    text = format_predictions(predictions, tuned.class_names, tuned.task, style=options.format, top=options.top)
    if options.output:
        write(options.output, text)
    else:
        sys.stdout.write(text)
    return 0


def select(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    check_folder(options.output)
    found = select_files(
        options.workdir,
        options.paths,
        options.count,
        method=options.method,
        seed=options.seed,
        batch_size=options.batch_size,
    )
    for line in found.notes:
        print(line, file=sys.stderr)
    if options.output:
        write(options.output, found.to_csv())
    else:
        sys.stdout.write(found.to_csv())
    return 0


def bench(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    from jaxft.bench import describe, format_table, run_bench, to_json

    check_folder(options.json)
    rows = run_bench(
        options.model,
        parts=_names(options.part),
        batches=_numbers(options.batch, "--batch"),
        size=options.size,
        dtype=options.dtype,
        devices=None if options.devices is None else _numbers(options.devices, "--devices"),
        per_device=options.per_device,
        optimizer=options.optimizer,
        accum_steps=options.accum_steps,
        augment=options.augment,
        processes=options.processes,
        data=options.data,
        rounds=options.rounds,
        seconds=options.seconds,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(f"{describe(rows)}\n\n{format_table(rows)}")
    if options.json:
        write(options.json, to_json(rows))
    return 0


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str, option: str) -> list[int]:
    try:
        return [int(part) for part in _names(text)]
    except ValueError:
        raise UsageError(f"{option} is '{text}': whole numbers with commas between them, e.g. {option}=1,2,4") from None


def export(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    print(export_run(options.workdir, options.out, to=options.to, step=options.step, overwrite=options.overwrite))
    return 0


def convert(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    report = convert_file(
        fetch(options.src), Path(options.dst), model=options.model, to=options.to, overwrite=options.overwrite
    )
    print(report)
    return 0


def verify(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    receipt = compare_with_original(
        options.network,
        None if options.seeded else options.weights or bool(models.split_tag(options.network)[1]),
        against=options.against,
        seed=options.seed,
        gain=options.gain,
        size=options.size,
        batch=options.batch,
        dtype=options.dtype,
        train=not options.no_train,
        pictures=options.pictures,
        torch_python=options.torch_python,
        reference=options.reference,
        keep=options.keep,
    )
    show(receipt, options.json)
    return 0 if receipt.equal else 1


def list_networks(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    names = models.list_models(options.pattern)
    if not names:
        raise UsageError(f"no network is called '{options.pattern}'; `jaxft models` lists all")
    print(_networks(names) if len(names) > 1 else _weights(names[0]))
    return 0


def _networks(names: Sequence[str]) -> str:
    rows = [("network", "parameters", "GFLOP", "pixels", "weights")]
    for name in names:
        size, tags = models.size_of(name), [record.tag for record in models.pretrained_records(name)]
        more = f", and {len(tags) - 3} more" if len(tags) > 3 else ""
        shown = ", ".join(tags[:3]) + more or "-"
        rows.append((name, f"{size.parameters / 1e6:,.1f} M", f"{size.flops / 1e9:,.2f}", str(size.size), shown))
    return "\n".join(aligned(rows, right=(1, 2, 3)))


def _weights(name: str) -> str:
    """One network, and all that is known of each of its weights."""
    size = models.size_of(name)
    title = f"{name}: {size.parameters:,} parameters, {size.flops / 1e9:,.2f} GFLOP for an image of {size.size} pixels"
    rows = [("weights", "classes", "pixels", "top-1", "licence", "source")]
    for record in models.pretrained_records(name):
        accuracy = "-" if record.accuracy is None else f"{record.accuracy:.1f} %"
        pixels, classes = str(record.preprocessing.size), str(record.num_classes or "-")
        rows.append((record.tag, classes, pixels, accuracy, record.licence or "-", record.source))
    return "\n".join([title, *(aligned(rows, right=(1, 2, 3)) if len(rows) > 1 else ["no pretrained weights are known"])])


COMMANDS = {
    "train": train,
    "probe": probe,
    "sweep": several.sweep,
    "continual": several.continual,
    "eval": eval,
    "predict": predict,
    "select": select,
    "inspect": inspect,
    "lr-find": find_lr,
    "bench": bench,
    "explain-step": explain,
    "compile": compile,
    "soup": several.soup,
    "export": export,
    "convert": convert,
    "verify": verify,
    "models": list_networks,
    "data": data_commands.run,
}
