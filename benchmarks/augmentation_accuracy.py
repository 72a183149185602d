"""What augmentation, and what help against wrong labels, brings in accuracy: runs of one recipe that differ in nothing else.

    python benchmarks/augmentation_accuracy.py --share 0.2 --epochs 15,35 --data sign-digits=SIGN_DIGITS
    python benchmarks/augmentation_accuracy.py --share 0.2 --epochs 9,21 --data scene6=SCENE6
    python benchmarks/augmentation_accuracy.py --share 0.2 --epochs 8,12 --noise 0.4 --data sign-digits=SIGN_DIGITS

Each data set is a folder as jaxft reads it. Its test split is its own, or its validation split where it has no other (which
then selects nothing), or a tenth of it; a tenth of the training pictures selects the checkpoint. EfficientNet-Lite0 with
ImageNet weights, `configs/finetune_folder.py` at 64 pixels, other epochs. `--share` trains on that share of the training
pictures, drawn by the seed: augmentation is for those who have few. With `--noise` that share of the labels to train on
and to select by are replaced by other classes; the test labels stay as they are. A run is made for every seed: of the
pictures, the head, the order, the augmentation and the wrong labels.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from results import conditions

import jaxft
from jaxft.data import Files, open_data
from jaxft.run import train

sys.path.insert(0, str(Path(__file__).parent.parent))
from configs.finetune_folder import get_config
from jaxft.config import phase

#: name -> (config.input.augment, options of the loss)
AUGMENTATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("none", {}),
    "crop, flip": ("random_resized_crop(0.5), random_flip", {}),
    "crop, flip, rotation, scale, colour, noise": (
        "random_resized_crop(0.5), random_flip, random_rotation(15), random_scale(0.85, 1.15), "
        "random_color(0.3, 0.3, 0.3, 0.03), random_noise(8)",
        {},
    ),
    "crop, flip, TrivialAugment": ("random_resized_crop(0.5), random_flip, trivial_augment", {}),
    "crop, flip, mixup, CutMix": ("random_resized_crop(0.5), random_flip, mixup(0.2), cutmix", {}),
}
AGAINST_NOISE: dict[str, tuple[str, dict[str, Any]]] = {
    "crop, flip": ("random_resized_crop(0.5), random_flip", {}),
    "and label smoothing 0.2": ("random_resized_crop(0.5), random_flip", {"label_smoothing": 0.2}),
    "and label flip 0.2": ("random_resized_crop(0.5), random_flip, random_label_flip(0.2)", {}),
    "and mixup 1.0": ("random_resized_crop(0.5), random_flip, mixup(1.0)", {}),
}


def write_table(folder: str, file: Path, *, share: float, noise: float, seed: int) -> None:
    """The data set as a table of path, label and split."""
    rng = np.random.default_rng(seed)
    found = open_data(f"folder:{folder}", val_fraction=0.1, test_fraction=0.1)
    own_val = found.val if found.test is None else None  # judges, since nothing else can
    parts = {"train": found.train, "test": own_val or found.test}
    if own_val is None:
        parts["val"] = found.val
    names = found.class_names
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["path", "label", "split"])
        for split, part in parts.items():
            assert isinstance(part, Files)
            selects = np.zeros(len(part), bool)
            if own_val is not None and split == "train":
                selects[np.random.default_rng(0).permutation(len(part))[: len(part) // 10]] = True
            for name, label, chosen in zip(part.names, part.labels, selects, strict=True):
                if split == "train" and not chosen and rng.random() >= share:
                    continue
                given = int(label)
                if split != "test" and rng.random() < noise:
                    given = (given + int(rng.integers(1, len(names)))) % len(names)
                writer.writerow([(part.root / name).absolute(), names[given], "val" if chosen else split])


def run(table: Path, augment: str, loss: dict[str, Any], seed: int, epochs: tuple[float, float]) -> tuple[float, float]:
    """Test accuracy and seconds of one run."""
    config = get_config("size=64")
    config.data.source = f"csv:{table}"
    config.seed = seed
    config.input.augment = augment
    config.loss.options.update(loss)
    config.train.patience = None
    config.train.eval_every = f"{sum(epochs) / 10:g} epochs"
    config.phases.phase1 = phase(train="head", length=f"{epochs[0]} epochs", lr=3e-3)
    config.phases.phase2 = phase(train="full", length=f"{epochs[1]} epochs", lr=3e-4)
    config.log.tensorboard = False
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as workdir:
        result = train(config, workdir)
    assert result.after is not None
    return result.after.figures["accuracy"], time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", action="append", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", default="2,10", help="of the head alone, of everything")
    parser.add_argument("--share", type=float, default=1.0, help="of the training pictures that are trained on")
    parser.add_argument("--noise", type=float, default=0.0, help="share of wrong labels")
    parser.add_argument("--only", action="append", help="names of variants; all if not given")
    parser.add_argument("--result", type=Path, help="a JSON file to write")
    options = parser.parse_args()
    head, full = (float(part) for part in options.epochs.split(","))
    variants = AGAINST_NOISE if options.noise else AUGMENTATIONS
    rows: list[dict[str, Any]] = []
    for given in options.data:
        name, _, folder = given.partition("=")
        for seed in range(options.seeds):  # variants take turns
            with tempfile.TemporaryDirectory() as place:
                table = Path(place) / "table.csv"
                write_table(folder, table, share=options.share, noise=options.noise, seed=seed)
                for variant, (augment, loss) in variants.items():
                    if options.only and variant not in options.only:
                        continue
                    accuracy, seconds = run(table, augment, loss, seed, (head, full))
                    row = {"data": name, "variant": variant, "augment": augment, "loss": loss, "seed": seed}
                    rows.append({**row, "accuracy": accuracy})
                    print(f"RESULT {name} {variant} seed {seed}: {accuracy:.2%} in {seconds:.0f} s", flush=True)
                    if options.result:
                        options.result.write_text(json.dumps(_record(options, rows), indent=1) + "\n")
    print(table_of(rows))


def _record(options: argparse.Namespace, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "date": datetime.date.today().isoformat(),
        **conditions(os.cpu_count() or 1),
        "jaxft": jaxft.__version__,
        "epochs": options.epochs,
        "noise": options.noise,
        "share": options.share,
        "runs": rows,
    }


def table_of(rows: list[dict[str, Any]]) -> str:
    """Mean and range over seeds, a row a variant, as Markdown."""
    sets = list(dict.fromkeys(row["data"] for row in rows))
    lines = [f"| training pictures | {' | '.join(sets)} |", "|---|" + "---|" * len(sets)]
    for variant in dict.fromkeys(row["variant"] for row in rows):
        cells = []
        for data in sets:
            found = [row["accuracy"] for row in rows if (row["data"], row["variant"]) == (data, variant)]
            each = ", ".join(f"{value:.1%}" for value in found)
            cells.append(f"{np.mean(found):.1%} ({each})" if found else "")
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
