"""What an augmentation costs: images/s of `jaxft.augment` and of torchvision's `transforms.v2`, measured in alternation.

    python benchmarks/augment_speed.py --torch-python=/path/to/torch/environment/bin/python

Both have the same cores and uint8 images of 224 pixels in memory, in batches of 32. jaxft's is what the training step does: one
compiled function of the batch, every image with its own parameters. torchvision's is a loop over the images, since a call
draws one set of parameters for all it is given, with one thread or with as many as there are cores, whichever is faster; its
mixup and CutMix are of batches, and of float images, which they need. Each changes every picture: torchvision leaves those
alone that the probability of a change spares, jaxft computes both and chooses.
See docs/data-speed.md.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import results
from alternate import Entry, MissingWorkError, Worker, WorkerError, contest, spread, use_cores, workers
from compare import run

from jaxft.columns import aligned
from jaxft.errors import JaxftError, near

SIZE = 224
#: Name -> the list of `jaxft.augment.parse`; `torch_augment.py` has torchvision's of the same name and strength. A resized crop
#: of a list is taken while a picture is read: here it is `random_resized_crop`, on the device.
OPERATIONS = {
    "flip": "random_flip",
    "rotation": "random_rotation(30)",
    "affine": "random_affine(degrees=30, translate=0.1, scale=(0.8, 1.2), shear=10)",
    "perspective": "random_perspective(0.5, p=1)",
    "resized crop": "",
    "color jitter": "random_color(0.4, 0.4, 0.4, 0.1)",
    "grey": "random_grey(1)",
    "blur": "random_blur((0.1, 2.0), p=1, radius=8)",
    "noise": "random_noise(20)",
    "posterize": "random_posterize(4, p=1)",
    "solarize": "random_solarize(128, p=1)",
    "equalize": "random_equalize(1)",
    "autocontrast": "random_autocontrast(1)",
    "sharpness": "random_sharpness(2, p=1)",
    "erasing": "random_erasing(1)",
    "RandAugment": "rand_augment",
    "TrivialAugment": "trivial_augment",
    "AugMix": "aug_mix",
    "mixup": "mixup(0.2)",
    "CutMix": "cutmix(1.0)",
}
KEY = ("operation", "batch", "size", "threads")


def measure(name: str, started: Mapping[str, Worker], options: argparse.Namespace) -> dict[str, Any]:
    """The row of an operation."""
    work = {"operation": name, "list": OPERATIONS[name], "batch": options.batch, "size": SIZE}
    threads = {"jaxft": [options.cores], "torchvision": sorted({1, options.cores})}
    entries = {
        side: [Entry(worker, f"threads={count}", {**work, "threads": count}) for count in threads[side]]
        for side, worker in started.items()
    }
    found, ratios = contest(entries, rounds=options.rounds, seconds=options.seconds)
    row: dict[str, Any] = {**work, "rounds": options.rounds, "seconds": options.seconds, **results.conditions(options.cores)}
    row["sides"] = {
        side: {
            "variant": of.best.entry.variant,
            **spread(of.best.speeds),
            "compile_seconds": of.best.compile_seconds,
            "variants": {runner.entry.variant: spread(runner.speeds) for runner in of.runners},
        }
        for side, of in found.items()
    }
    row["ratio"] = {**spread(ratios["torchvision"]), "rounds": ratios["torchvision"]}
    for side in found.values():
        for runner in side.runners:
            runner.drop()
    return row


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as text: images/s of both and their ratio."""
    lines = [["operation", "jaxft", "torchvision", "of", "ratio", "quartiles", "jaxft, ms an image"]]
    for row in rows:
        ours, theirs = (row["sides"][side]["median"] for side in ("jaxft", "torchvision"))
        ratio = row["ratio"]
        quartiles = f"{ratio['q1']:.2f}-{ratio['q3']:.2f}"
        lines.append(
            [
                row["operation"],
                f"{ours:,.0f}",
                f"{theirs:,.0f}",
                row["sides"]["torchvision"]["variant"],
                f"{ratio['median']:.2f}",
                quartiles,
                f"{1e3 / ours:.2f}",
            ]
        )
    return "\n".join(aligned(lines, right=(1, 2, 4, 6)))


def chosen(text: str | None) -> list[str]:
    """Names of `OPERATIONS`; None is all.

    Raises:
      JaxftError: a name that is none.
    """
    names = list(OPERATIONS) if text is None else text.split(",")
    for name in names:
        if name not in OPERATIONS:
            raise JaxftError(f"no operation is called '{name}'{near(name, OPERATIONS)}; there are {', '.join(OPERATIONS)}")
    return names


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # workers end with this process
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", required=True, help="the Python of an environment with torch and torchvision")
    parser.add_argument("--operations", help=f"with commas between, of {', '.join(OPERATIONS)}; without it all")
    parser.add_argument("--batch", type=int, default=32, help="images a call (32)")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="cores, and threads, of each side (all)")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each side (9)")
    parser.add_argument("--seconds", type=float, default=1.0, help="about the length of a turn (1)")
    parser.add_argument("--result", type=Path, help="a result file; other rows in it stay")
    options = parser.parse_args()
    names = chosen(options.operations)
    use_cores(options.cores)
    rows, code = [], 0
    commands = {"jaxft": (sys.executable, "jaxft_augment.py"), "torchvision": (options.torch_python, "torch_augment.py")}
    with workers(commands) as started:
        about = {side: worker.ask("about") for side, worker in started.items()}
        for name in names:
            try:
                row = {**measure(name, started, options), "versions": {side: of["versions"] for side, of in about.items()}}
            except (MissingWorkError, WorkerError) as error:
                print(f"{name} failed: {error}", file=sys.stderr, flush=True)
                code = 1
                continue
            rows.append(row)
            if options.result is not None:
                results.merge(options.result, [row], KEY)
            print(table([row]).splitlines()[-1], flush=True)
    print("\n" + table(rows))
    return code


if __name__ == "__main__":
    run(main)
