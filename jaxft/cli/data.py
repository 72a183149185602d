"""`jaxft data`: look at a data set, pack it, show what a network sees of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxft.cli.config import read_config
from jaxft.cli.output import check_folder, show

_COMMANDS = {
    "check": "look at every picture: classes, sizes, unreadable files, duplicates; with a page of pictures",
    "convert": "pack a data set into array_record shards, read as records:FOLDER",
    "show": "draw what the network sees of the training data, before and after augmentation",
}


def add_commands(parser: argparse.ArgumentParser, parser_class: type[argparse.ArgumentParser]) -> None:
    """Adds the commands below `jaxft data` and their options."""
    commands = parser.add_subparsers(dest="data_command", metavar="COMMAND", parser_class=parser_class, required=True)
    made = {name: commands.add_parser(name, help=text, description=text) for name, text in _COMMANDS.items()}
    for name in ("check", "convert"):
        made[name].add_argument(
            "source", metavar="SOURCE", help="a folder, or csv:, parquet:, hf:, wds:, records:, tfds:, python: (docs/data.md)"
        )
        made[name].add_argument("--task", default="classify", help="classify, multilabel, soft, regression or unlabelled")
        made[name].add_argument("--data-dir", metavar="FOLDER", help="of tensorflow-datasets")
        made[name].add_argument("--threads", type=int, help="that read the pictures")
    made["check"].add_argument("--sheet", metavar="FILE", help="write a page of HTML with pictures there")
    made["check"].add_argument("--json", metavar="FILE", help="write all figures there; - is standard output")
    made["check"].add_argument(
        "--near", type=int, metavar="BITS", help="of 64 in which pictures that look alike may differ; -1 does not look for them"
    )
    made["convert"].add_argument("out", metavar="OUT", help="the folder to make")
    made["convert"].add_argument("--shards", type=int, metavar="N", help="files of the largest split; 1 GiB each if not given")
    made["convert"].add_argument("--max-side", type=int, metavar="PIXELS", help="larger pictures are made smaller")
    made["convert"].add_argument("--quality", type=int, default=95, help="of JPEGs that are made smaller")
    made["convert"].add_argument("--max-bad-fraction", type=float, default=0.0, help="of unreadable pictures to leave out")
    made["convert"].add_argument("--group", help="a column or a regular expression, kept with the examples")
    made["convert"].add_argument("--overwrite", action="store_true")
    made["show"].add_argument("out", metavar="OUT", help="the PNG to write")
    made["show"].add_argument("--config", required=True, metavar="FILE[:ARG]", help="a recipe; --config.KEY=VALUE overrides it")
    made["show"].add_argument("--examples", type=int, default=6, help="rows")
    made["show"].add_argument("--looks", type=int, default=6, help="passes over the data, from the first")


def run(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Runs the command that was asked for."""
    return {"check": _check, "convert": _convert, "show": _show}[options.data_command](options, overrides)


def _check(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    from jaxft.data import check_data
    from jaxft.data.duplicates import NEAR

    for file in (options.json, options.sheet):
        check_folder(file)
    near = NEAR if options.near is None else options.near
    survey = check_data(
        options.source,
        task=options.task,
        threads=options.threads,
        near=None if near < 0 else near,
        sheet=Path(options.sheet) if options.sheet else None,
        data_dir=options.data_dir,
    )
    show(survey, options.json)
    return 0


def _convert(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    from jaxft.data.convert import convert_data

    made = convert_data(
        options.source,
        Path(options.out),
        task=options.task,
        shards=options.shards,
        max_side=options.max_side,
        quality=options.quality,
        max_bad_fraction=options.max_bad_fraction,
        data_dir=options.data_dir,
        group=options.group,
        overwrite=options.overwrite,
        say=lambda line: print(line, file=sys.stderr, flush=True),
        **({} if options.threads is None else {"threads": options.threads}),
    )
    print(made)
    return 0


def _show(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    from jaxft.looks import show_looks

    check_folder(options.out)
    print(show_looks(read_config(options.config, overrides), Path(options.out), examples=options.examples, looks=options.looks))
    return 0
