"""Ways to fine-tune side by side, with few labels: accuracy, trained share of the parameters, time, memory.

    python benchmarks/methods.py --data scene6=SCENE6 --data sign-digits=SIGN_DIGITS --data cifar10-jpeg=CIFAR10

Each data set is a folder as jaxft reads it. EfficientNet-Lite0 with ImageNet weights at 64 pixels is trained on 5, 20 and 100
pictures of each class, which the seed draws (and nothing else: head, order and augmentation begin alike), and judged once, at
the end, on pictures that nothing has seen: a test split, or a validation split where there is no other, of at most
`--test-per-class` pictures a class, the same in all runs.

All methods that take gradients see as many pictures in the same order under the same augmentation, AdamW, cosine. A method has
one rate (the linear probe one C) for all cells: the best of a grid on `RATES_ON`, which goes on beyond an end that is best,
of pictures drawn by another seed, judged by training pictures that no cell trains on. Finished runs are kept: the same command
goes on after a stop.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from results import RESULTS, conditions, percent, read

import jaxft
from jaxft import tree
from jaxft.config import default_config, phase
from jaxft.data import Files, open_data
from jaxft.files import write_whole
from jaxft.parallel import make_mesh, put_batch
from jaxft.parallel.memory import memory_of
from jaxft.plan import make_plan
from jaxft.probing import probe
from jaxft.run import train
from jaxft.states import first_state, jit_train_step

BATCH, SIZE = 32, 64
#: Pictures of each class -> pictures shown in all.
SHOWN = {5: 1024, 20: 2048, 100: 5120}
#: Training pictures of each class that no cell trains on: rates are chosen by them.
ASIDE = 30
RATES_ON = ("scene6", 20, 1000)
GRID = (1.0, 3.0, 10.0)
#: name -> (parts that phases train, after " - " what stays frozen, and the share of the steps each has; the least rate).
METHODS: dict[str, tuple[tuple[tuple[str, float], ...], float]] = {
    "head": ((("head", 1.0),), 1e-3),
    "biases+head": ((("biases+head", 1.0),), 1e-3),
    "norms+head": ((("norms+head", 1.0),), 1e-3),
    "norms+head, statistics frozen": ((("norms+head - statistics", 1.0),), 1e-3),
    "ssf+head": ((("ssf+head", 1.0),), 1e-3),
    "lora+head": ((("lora+head", 1.0),), 3e-4),
    "from:stage5": ((("from:stage5", 1.0),), 1e-4),
    "full": ((("full", 1.0),), 1e-4),
    "full, norms frozen": ((("full - norms", 1.0),), 1e-4),
    "head, then full": ((("head", 0.3), ("full", 0.7)), 1e-4),
}
#: The head's own rate where it trains first.
HEAD_FIRST = 3e-3
PROBE = "linear probe"
CS = tuple(10.0**power for power in range(-5, 3))


def write_table(folder: str, file: Path, test_per_class: int) -> None:
    """The data set as a table of path, label and split: `val` are training pictures set aside, `test` what judges."""
    found = open_data(f"folder:{folder}", val_fraction=0.1, test_fraction=0.2)
    parts = {"train": found.train, "test": found.test if found.test is not None else found.val}
    rng = np.random.default_rng(0)
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["path", "label", "split"])
        for split, part in parts.items():
            assert isinstance(part, Files)
            for number, name in enumerate(found.class_names):
                drawn = rng.permutation(np.flatnonzero(part.labels == number))
                for place, index in enumerate(drawn if split == "train" else drawn[:test_per_class]):
                    named = "val" if split == "train" and place < ASIDE else split
                    writer.writerow([(part.root / part.names[index]).absolute(), name, named])


def config_of(table: Path, method: str, per_class: int, seed: int, setting: float) -> ConfigDict:
    """The run of a cell; `setting` is the rate, or C."""
    config = default_config()
    config.seed = 0  # else every run would be compiled anew
    config.data.source, config.data.per_class, config.data.split_seed = f"csv:{table}", per_class, seed
    config.model.size = SIZE
    config.input.batch_size, config.input.eval_batch_size = BATCH, 100
    config.input.augment = "random_resized_crop(0.5), random_flip"
    config.optim.weight_decay, config.optim.clip_norm = 0.01, 1.0
    config.train.eval_every = config.train.log_every = "1000000 steps"  # once, at the end of each phase
    config.log.tensorboard = False
    config.phases = ConfigDict()
    if method == PROBE:
        config.probe.c_min, config.probe.c_max, config.probe.c_count = setting, setting, 1
        return config
    steps = SHOWN[per_class] // BATCH
    parts, _ = METHODS[method]
    for number, (part, share) in enumerate(parts, 1):
        rate = HEAD_FIRST if number < len(parts) else setting
        part, _, frozen = part.partition(" - ")
        config.phases[f"phase{number}"] = phase(train=part, freeze=frozen, length=f"{round(share * steps)} steps", lr=rate)
    return config


def run(table: Path, method: str, per_class: int, seed: int, setting: float, *, judge: str) -> float:
    """Accuracy of one run, on "test" or "val"."""
    config = config_of(table, method, per_class, seed, setting)
    with tempfile.TemporaryDirectory() as workdir:
        if method == PROBE:
            (row,) = probe(config, workdir, methods=["linear"], say=lambda line: None).rows
            figure = row.test if judge == "test" else row.validation
            assert figure is not None
            return figure[0]
        result = train(config, workdir, test=judge == "test")
        assert result.after is not None
        return result.after.figures["accuracy"]


def settings_of(method: str) -> Sequence[float]:
    return CS if method == PROBE else [METHODS[method][1] * factor for factor in GRID]


def costs(table: Path, rounds: int, steps: int) -> dict[str, dict[str, float]]:
    """Of each method of one phase the trained share, the memory of its step in bytes, and the step's time.

    The times are of steps in turn, `rounds` times `steps` of each method; kept are the medians, and of the ratios to the
    head's step, round by round, the quartiles.
    """
    mesh, sides = make_mesh(), {}
    found: dict[str, dict[str, float]] = {}
    for method, (parts, _) in METHODS.items():
        if len(parts) > 1:  # made of steps of the others
            continue
        config = config_of(table, method, min(SHOWN), 0, settings_of(method)[0])
        plan = make_plan(config)
        (last,) = plan.phases
        state = first_state(plan, config, mesh)
        side = plan.augment.window.side(SIZE)
        rng = np.random.default_rng(0)
        batch = put_batch(
            {
                "image": rng.integers(0, 256, (BATCH, side, side, 3), dtype=np.uint8),
                "label": rng.integers(0, len(plan.splits.class_names), BATCH).astype(np.int32),
                "mask": np.ones(BATCH, np.float32),
                "index": np.arange(BATCH, dtype=np.int32),
                "shown": np.zeros(BATCH, np.int32),
            },
            mesh,
        )
        step = jit_train_step(plan, last, config, mesh).lower(state, batch).compile()
        memory = memory_of(step)
        trained = tree.count(tree.split(plan.params, last.mask)[0])
        found[method] = {"trained": trained / tree.count(plan.params), "memory": memory.peak if memory else float("nan")}
        sides[method] = [step, state, batch]

    def timed(method: str) -> float:
        step, state, batch = sides[method]
        start = time.perf_counter()
        for _ in range(steps):
            state, metrics = step(state, batch)
        jax.block_until_ready((state, metrics))
        sides[method][1] = state
        return (time.perf_counter() - start) / steps

    for method in sides:
        timed(method)
    times = [{method: timed(method) for method in sides} for _ in range(rounds)]
    for method in sides:
        ratios = [one[method] / one["head"] for one in times]
        low, middle, high = statistics.quantiles(ratios, n=4)
        found[method] |= {"milliseconds": 1e3 * statistics.median(one[method] for one in times)}
        found[method] |= {"ratio": middle, "ratio_low": low, "ratio_high": high}
    return found


def table_of(record: dict[str, Any]) -> str:
    """Mean accuracy over seeds in percent, a row a method, as Markdown; below it how far seeds lie apart."""
    cells: dict[tuple[str, int], dict[str, list[float]]] = {}
    for row in record["rows"]:
        cell = cells.setdefault((row["data"], row["per_class"]), {})
        cell.setdefault(row["method"], []).append(100 * row["accuracy"])
    places = sorted(cells, key=lambda place: ([data for data, _ in cells].index(place[0]), place[1]))
    lines = [f"| method | {' | '.join(f'{data}, {count}' for data, count in places)} |", "|---|" + "---|" * len(places)]
    for method in [PROBE, *METHODS]:
        figures = (cells[place].get(method) for place in places)
        lines.append(f"| {method} | {' | '.join(f'{statistics.mean(found):.1f}' if found else '' for found in figures)} |")
    spread = [max(found) - min(found) for cell in cells.values() for found in cell.values()]
    lines += [
        "",
        f"from the worst seed to the best: {statistics.median(spread):.1f} in the median cell, {max(spread):.1f} at most",
    ]
    return "\n".join(lines)


def costs_of(record: dict[str, Any]) -> str:
    """What a step of each method costs, as Markdown."""
    lines = ["| method | parameters trained | a step, times the head's (quartiles) | its memory |", "|---|---|---|---|"]
    for method, found in record["costs"].items():
        ratio = f"{found['ratio']:.1f} ({found['ratio_low']:.1f}-{found['ratio_high']:.1f})"
        lines.append(f"| {method} | {percent(found['trained'])} | {ratio} | {found['memory'] / 2**20:.0f} MB |")
    return "\n".join(lines)


def choose(record: dict[str, Any], table: Path, method: str, keep: Callable[[], None]) -> None:
    """The setting of a method: the best of its grid, which grows by factors of three (C: of ten) beyond an end that is best."""
    _, per_class, seed = RATES_ON
    factor, waiting = (10.0 if method == PROBE else 3.0), list(settings_of(method))
    while True:
        tried = {row["setting"]: row["accuracy"] for row in record["grid"] if row["method"] == method}
        for setting in [one for one in waiting if not any(np.isclose(one, known) for known in tried)]:
            tried[setting] = run(table, method, per_class, seed, setting, judge="val")
            record["grid"].append({"method": method, "setting": setting, "accuracy": tried[setting]})
            print(f"RATE {method} {setting:g}: {tried[setting]:.2%}", flush=True)
            keep()
        best, ends = max(tried, key=tried.__getitem__), (min(tried), max(tried))
        if best not in ends:
            record["settings"][method] = best
            return
        waiting = [best * factor if best == ends[1] else best / factor]


def open_record(path: Path) -> dict[str, Any]:
    return read(path) if path.exists() else {"settings": {}, "grid": [], "costs": {}, "rows": []}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", action="append", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test-per-class", type=int, default=100)
    parser.add_argument("--only", action="append", help="names of methods; all if not given")
    parser.add_argument("--costs", action="store_true", help="time, memory and trained share alone, and not the runs")
    parser.add_argument("--rounds", type=int, default=7, help="of the timing")
    parser.add_argument("--result", type=Path, default=RESULTS / "methods.json")
    options = parser.parse_args()
    methods = [method for method in [PROBE, *METHODS] if not options.only or method in options.only]
    record = open_record(options.result)

    def keep() -> None:
        about = {**conditions(os.cpu_count() or 1), "jaxft": jaxft.__version__, "jax": jax.__version__}
        about |= {"python": ".".join(map(str, sys.version_info[:3])), "shown": SHOWN, "batch": BATCH, "size": SIZE}
        write_whole(options.result, json.dumps({**record, "conditions": about}, indent=1) + "\n")

    with tempfile.TemporaryDirectory() as place:
        tables = {}
        for given in options.data:
            name, _, folder = given.partition("=")
            tables[name] = Path(place) / f"{name}.csv"
            write_table(folder, tables[name], options.test_per_class)
        if options.costs:
            record["costs"] = costs(next(iter(tables.values())), options.rounds, steps=4)
            keep()
            print(costs_of(record))
            return
        if RATES_ON[0] in tables:
            for method in methods:
                choose(record, tables[RATES_ON[0]], method, keep)
        done = {(row["data"], row["per_class"], row["seed"], row["method"]) for row in record["rows"]}
        for seed in range(options.seeds):
            for per_class in SHOWN:
                for name, table in tables.items():
                    for method in methods:
                        if (name, per_class, seed, method) in done:
                            continue
                        start = time.perf_counter()
                        accuracy = run(table, method, per_class, seed, record["settings"][method], judge="test")
                        key = {"data": name, "per_class": per_class, "seed": seed, "method": method}
                        record["rows"].append({**key, "accuracy": accuracy})
                        seconds = time.perf_counter() - start
                        print(f"RESULT {name} {per_class} seed {seed} {method}: {accuracy:.2%} in {seconds:.0f} s", flush=True)
                        keep()
    print(table_of(record))


if __name__ == "__main__":
    main()
