"""Training input without a device: images/s of jaxft, torchvision and Grain on the same files, measured in alternation.

    python benchmarks/loading.py --data=NAME=FOLDER [--torch-python=/path/to/torch/environment/bin/python]
    python benchmarks/loading.py --data=NAME=FOLDER --memory=20

A folder holds class folders. Every library decodes, takes a random resized crop of 224 pixels and gives shuffled uint8 batches
of 64 without end; first on one core, then on all that this process may use; from files, and those that can, from records
(`jaxft data convert`). Beside the folders it reads photographs of 1600 x 1200 pixels, made of the first folder's pictures.
Files lie in memory: each was read before it is timed. See docs/data-speed.md.

With `--memory` it reads the same folders for so many epochs with jaxft alone, prints the memory that is resident after each,
and ends with 1 where that grows.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import results
from alternate import Entry, MissingWorkError, Side, Worker, WorkerError, contest, spread, use_cores, workers
from compare import run
from photographs import make_photographs

from jaxft.columns import aligned
from jaxft.data import open_data, train_batches
from jaxft.data.convert import convert_data
from jaxft.data.sources import find_pictures
from jaxft.errors import JaxftError
from jaxft.preprocessing import Preprocessing

SIZE = 224
#: MB an epoch beyond which memory grows.
MOST_GROWTH = 0.5
KEY = ("part", "data", "threads")


def sides(cores: int) -> dict[str, tuple[str, list[str]]]:
    """Row of the table -> (worker, its variants, of which the fastest counts). The ratios are of the first."""
    processes = sorted({0, 1, 2, cores})
    threads = [f"threads={cores}", "threads=default", f"batches={cores}"]
    return {
        "jaxft, folder": ("jaxft", ["folder", "folder+processes"]),
        "jaxft, folder, decoded in full": ("jaxft", ["folder+full", "folder+processes+full"]),
        "jaxft, records": ("jaxft", ["records", "records+processes"]),
        "jaxft, records, decoded in full": ("jaxft", ["records+full", "records+processes+full"]),
        "torchvision, PIL": ("torch", [f"PIL+workers={count}" for count in processes]),
        "torchvision, tensors": ("torch", [f"tensor+workers={count}" for count in processes]),
        "grain, files": ("grain", [f"files+{how}" for how in [*threads, "workers=0", f"workers={max(2, cores)}"]]),
        "grain, records": ("grain", [f"records+{how}" for how in [*threads, "workers=0", f"workers={max(2, cores)}"]]),
    }


def measure(
    started: Mapping[str, Worker], work: dict[str, Any], cores: int, options: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """All loaders on one data set."""
    about = {name: worker.ask("about") for name, worker in started.items()}
    chosen = {side: found for side, found in sides(cores).items() if found[0] in started}
    entries = {
        side: [Entry(started[name], variant, {**work, "variant": variant}) for variant in variants]
        for side, (name, variants) in chosen.items()
    }
    found, ratios = contest(entries, rounds=options.rounds, seconds=options.seconds)
    return {side: _side(result, ratios.get(side), about[chosen[side][0]], cores) for side, result in found.items()}


def _side(side: Side, ratio: Sequence[float] | None, about: Mapping[str, Any], cores: int) -> dict[str, Any]:
    speed = spread(side.best.speeds)
    return {
        "variant": side.best.entry.variant,
        "images_per_second": {**speed, "rounds": side.best.speeds},
        "images_per_second_a_core": speed["median"] / cores,
        "ratio": None if ratio is None else {**spread(ratio), "rounds": list(ratio)},
        "variants": {runner.entry.variant: spread(runner.speeds) for runner in side.runners},
        "screened": side.screened,
        "failed": side.failed,
        "versions": about["versions"],
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as text, one line for each loader."""
    lines = [["data", "cores", "loader", "variant", "images/s", "quartiles", "a core", "jaxft over it", "quartiles"]]
    for row in rows:
        for side, found in row["sides"].items():
            speed, ratio = found["images_per_second"], found["ratio"]
            figures = [f"{speed['median']:,.0f}", f"{speed['q1']:,.0f}-{speed['q3']:,.0f}"]
            over = ["", ""] if ratio is None else [f"{ratio['median']:.2f}", f"{ratio['q1']:.2f}-{ratio['q3']:.2f}"]
            each = f"{found['images_per_second_a_core']:,.0f}"
            lines.append([row["data"], str(row["threads"]), side, found["variant"], *figures, each, *over])
    return "\n".join(aligned(lines, right=(1, 4, 6, 7)))


def resident() -> float:
    """MB of memory that this process has resident now.

    Raises:
      JaxftError: the system does not tell.
    """
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError as error:
        raise JaxftError("--memory reads /proc/self/statm, which this system does not have") from error
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory(root: Path, epochs: int, batch: int, threads: int) -> list[float]:
    """MB resident after each epoch, while no picture is being decoded."""
    source = open_data(f"folder:{root}", val_fraction=0.0, test_fraction=0.0).train
    batches = train_batches(
        source, Preprocessing(size=SIZE), batch_size=batch, seed=0, augment="random_resized_crop", threads=threads
    )
    found: list[float] = []
    shown = 0
    with contextlib.closing(batches):
        for epoch in range(epochs):
            while shown < (epoch + 1) * len(source):
                next(batches)
                shown += batch
            _come_to_rest()
            gc.collect()
            found.append(resident())
            print(f"epoch {epoch + 1}: {found[-1]:,.1f} MB", flush=True)
    return found


def _come_to_rest() -> None:
    """Waits until the threads have made what they make ahead: pictures that are being decoded take megabytes each."""
    computed = -1.0
    while time.process_time() - computed > 0.01:
        computed = time.process_time()
        time.sleep(0.2)


def growth(megabytes: Sequence[float]) -> float:
    """MB an epoch: the median of the slopes between any two of the third epoch and later ones (Theil, 1950; Sen, 1968).

    Before, threads still start and heaps still grow to what they need. Single epochs may lie far off: freed memory goes back to
    the system or stays.
    """
    later = np.asarray(megabytes[2:])
    first, second = np.triu_indices(len(later), 1)
    return float(np.median((later[second] - later[first]) / (second - first)))


def remember(folders: Mapping[str, Path], options: argparse.Namespace) -> int:
    """`--memory`: the exit code."""
    if options.memory < 10:
        raise JaxftError(f"--memory is {options.memory}: growth cannot be told from chance in fewer than 10 epochs")
    cores, code = max(options.cores), 0
    for name, root in folders.items():
        print(f"{name}, {cores} threads")
        found = memory(root, options.memory, options.batch, cores)
        slope = growth(found)
        print(f"{name}: it grows by {slope:.2f} MB an epoch (at most {MOST_GROWTH} may be)", flush=True)
        code = code or int(slope > MOST_GROWTH)
        if options.result is not None:
            row = {"part": "memory", "data": name, "resident_mb": found, "growth_mb_an_epoch": slope}
            results.merge(options.result, [{**row, **results.conditions(cores)}], KEY)
    return code


def compare_loaders(folders: Mapping[str, Path], packed: Path, options: argparse.Namespace) -> int:
    """Without `--memory`: the exit code, 1 where something failed."""
    commands = {"jaxft": (sys.executable, "jaxft_loading.py"), "grain": (sys.executable, "grain_loading.py")}
    if options.torch_python:
        commands["torch"] = (options.torch_python, "torch_loading.py")
    rows, code = [], 0
    for name, root in folders.items():
        made = convert_data(f"folder:{root}", packed / name)  # reads every file, so that all lie in memory
        count = sum(made.splits.values())
        pictures = {"count": count, "mean_bytes": round(made.bytes / count)}
        work = {"root": str(root), "records": str(made.folder), "examples": count, "batch": options.batch, "size": SIZE}
        for cores in options.cores:
            try:
                with on_cores(cores), workers(commands) as started:
                    found = measure(started, {**work, "threads": cores}, cores, options)
            except (MissingWorkError, WorkerError) as error:
                print(f"{name} on {cores} cores failed: {error}", file=sys.stderr, flush=True)
                code = 1
                continue
            row = {
                "part": "loading", "data": name, "pictures": pictures, "batch": options.batch, "size": SIZE, "sides": found,
                "rounds": options.rounds, "seconds": options.seconds, **results.conditions(cores),
            }  # fmt: skip
            rows.append(row)
            if options.result is not None:
                results.merge(options.result, [row], KEY)
            for side, one in found.items():
                for variant, why in one["failed"].items():
                    print(f"{name}, {side}: {variant} left out: {why.splitlines()[-1]}", file=sys.stderr)
            print(table([row]) + "\n", flush=True)
    if len(rows) > 1:
        print(table(rows))
    return code


@contextlib.contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Binds this process, and the workers it starts meanwhile, to its first `count` cores."""
    before = os.sched_getaffinity(0)
    use_cores(count)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def folder_of(text: str) -> tuple[str, Path]:
    """NAME=FOLDER; of a folder with splits, that of training."""
    name, _, path = text.partition("=")
    folder = Path(path).expanduser()
    if not (name and path and folder.is_dir()):
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=FOLDER, with a folder that is there")
    return name, (folder / "train" if (folder / "train").is_dir() else folder).absolute()


def core_counts(text: str) -> list[int]:
    here = len(os.sched_getaffinity(0))
    found = [int(count) for count in text.split(",") if count.isdigit()]
    if not found or len(found) != text.count(",") + 1 or not all(1 <= count <= here for count in found):
        raise argparse.ArgumentTypeError(f"'{text}' are not numbers of cores with commas between: this process may use {here}")
    return found


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # workers end with this process
    if not hasattr(os, "sched_getaffinity"):
        raise JaxftError("this benchmark binds its workers to cores, which this system cannot")
    here = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=folder_of, action="append", required=True, metavar="NAME=FOLDER", help="again for more")
    parser.add_argument("--photographs", type=int, default=200, help="how many are made (200); 0 is none")
    parser.add_argument(
        "--torch-python", help="the Python of an environment with torch and torchvision; without it they are not timed"
    )
    parser.add_argument("--cores", type=core_counts, default=sorted({1, here}), help=f"with commas between (1,{here})")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each loader (5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="about the length of a turn (2)")
    parser.add_argument("--batch", type=int, default=64, help="pictures in a batch (64)")
    parser.add_argument("--memory", type=int, nargs="?", const=20, metavar="EPOCHS", help="instead, memory over epochs (20)")
    parser.add_argument("--result", type=Path, help="a result file; other rows in it stay")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folders = dict(options.data)
        if options.photographs:
            pictures = find_pictures(options.data[0][1])
            folders["photographs"] = make_photographs(Path(folder) / "photographs", pictures, count=options.photographs)
        if options.memory is not None:
            return remember(folders, options)
        return compare_loaders(folders, Path(folder) / "records", options)


if __name__ == "__main__":
    run(main)
