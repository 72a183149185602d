"""Using a fine-tuned network: judge it on data, classify pictures."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxft.columns import aligned
from jaxft.config import call
from jaxft.data import Files, Source, Splits, eval_batches, open_data, predict_source
from jaxft.errors import JaxftError
from jaxft.evaluate import averaged, evaluate_source, parse_views, scores
from jaxft.finetuned import FineTuned
from jaxft.parallel import make_mesh, one_late, put_batch
from jaxft.paths import open_path
from jaxft.report import Judged, judge
from jaxft.representation import refuse_representation
from jaxft.tasks import get_task
from jaxft.train import make_eval_step
from jaxft.typing import ApplyFn, ModelState, Outputs, Params
from jaxft.workdir import load_run, splits_file


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a network says of some pictures, in the order they were given.

    Attributes:
      names: one a picture.
      logits: [N, K] f32.
      bad: (name, reason) of pictures that could not be read; they are in none of the above.
    """

    names: tuple[str, ...]
    logits: np.ndarray
    bad: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class RunEvaluation:
    """An evaluation of a run on a split."""

    split: str
    step: int
    judged: Judged
    expected: int

    def to_json(self) -> str:
        return json.dumps({"split": self.split, "step": self.step, **dataclasses.asdict(self.judged)}, indent=2)

    def __str__(self) -> str:
        lines = [f"{self.split} split, checkpoint {self.step}: evaluated {self.judged.count} of {self.expected}"]
        for name, value in self.judged.figures.items():
            interval = self.judged.intervals.get(name)
            lines.append(f"{name}  {value:.4f}" + (f"  [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else ""))
        return "\n".join(lines)


def evaluate_run(
    workdir: str | Path, *, split: str | None = None, data: str | None = None, batch_size: int = 64, tta: str = ""
) -> RunEvaluation:
    """Judges a run's best checkpoint.

    Args:
      workdir: see `jaxft.load_run`.
      split: "train", "val" or "test"; None is "val" of the run's own data, and all of `data` where that comes in one piece.
      data: another source with the same classes; None is the run's own.
      batch_size: rounded up to a multiple of the devices.
      tta: test-time augmentation, the mean over several views of each picture; see `jaxft.evaluate.parse_views`.

    Raises:
      JaxftError: no such run, split or view, or other classes.
    """
    tuned = load_run(workdir)
    refuse_representation(tuned.task, "an evaluation")
    splits = run_data(tuned, workdir, data)
    if tuple(splits.class_names) != tuned.class_names:
        raise JaxftError(
            f"the network knows {len(tuned.class_names)} classes ({', '.join(tuned.class_names[:4])}, ...), the data has "
            f"{len(splits.class_names)} ({', '.join(splits.class_names[:4])}, ...): they must be the same, in the same order"
        )
    there = {name: part for name in ("train", "val", "test") if (part := getattr(splits, name)) is not None}
    if split is None:
        if data is not None and len(there) > 1:
            raise JaxftError(f"'{data}' has the splits {', '.join(there)}: choose one with --split")
        split = "val" if data is None else next(iter(there))
    if split not in there:
        raise JaxftError(f"'{data or tuned.record['config']['data']['source']}' has no {split} split, only {', '.join(there)}")
    source = there[split]
    task = get_task(tuned.task, tuned.model.num_classes)
    step = jax.jit(make_eval_step(_viewed(tuned, tta), task.loss, metrics=task.metrics))
    found = evaluate_source(step, tuned.params, tuned.model_state, source, tuned.model, batch_size=batch_size, mesh=make_mesh())
    return RunEvaluation(split, tuned.step, judge(found, task, tuned.class_names), len(source))


def run_data(tuned: FineTuned, workdir: str | Path, data: str | None = None) -> Splits:
    """A run's own data, split as they were, or other data in one piece, as `evaluate_run` takes both."""
    section = dict(tuned.record["config"]["data"]) | {"unlabelled": ""}  # it judges nothing
    if data is not None:
        section |= {"source": data, "val_fraction": 0.0, "test_fraction": 0.0, "group": None, "per_class": None, "replay": None}
    found: Splits = call(open_data, section, "config.data", manifest=splits_file(open_path(workdir)) if data is None else None)
    return found


def _viewed(tuned: FineTuned, tta: str) -> ApplyFn:
    """The network on pixels, its answers the mean over views."""
    return averaged(tuned.apply, parse_views(tta), probabilities=tuned.task in ("classify", "soft"))


def predict_files(tuned: FineTuned, paths: Sequence[str | Path], *, batch_size: int = 64, tta: str = "") -> Predictions:
    """Classifies picture files, or all pictures in folders; `tta` as in `evaluate_run`.

    Raises:
      JaxftError: a path does not exist, a folder has no pictures, or not one picture can be read.
    """
    refuse_representation(tuned.task, "a prediction")
    source, bad = readable(tuned, paths)
    apply = _viewed(tuned, tta)

    def logits_of(params: Params, model_state: ModelState, image: jax.Array) -> Outputs:
        outputs, _ = apply(params, model_state, image, train=False, rng=None)
        return {"logits": outputs["logits"]}

    logits = run_over(tuned, source, logits_of, batch_size=batch_size)["logits"]
    return Predictions(tuple(source.names), logits, tuple(bad))


def readable(tuned: FineTuned, paths: Sequence[str | Path]) -> tuple[Files, list[tuple[str, str]]]:
    """The pictures of `predict_files` that can be read, and (name, reason) of the others; its errors."""
    source, bad = predict_source(paths, channels=tuned.model.in_channels)
    if not len(source):
        raise JaxftError(f"none of the {len(bad)} pictures can be read; {bad[0][0]}: {bad[0][1]}")
    return source, bad


def run_over(
    tuned: FineTuned, source: Source, outputs: Callable[[Params, ModelState, jax.Array], Outputs], *, batch_size: int
) -> dict[str, np.ndarray]:
    """What a function makes of every picture, as an evaluation shows it, in the order of the source, on all devices.

    Args:
      tuned: whose parameters and preprocessing.
      source: at least one picture.
      outputs: `(params, model_state, uint8 [B, S, S, C]) -> {name: [B, ...]}`, to be jitted.
      batch_size: rounded up to a multiple of the devices.
    """
    mesh, compiled = make_mesh(), jax.jit(outputs)
    batch_size = -(-min(batch_size, len(source)) // mesh.size) * mesh.size
    batches = eval_batches(source, tuned.model.preprocessing, batch_size=batch_size, channels=tuned.model.in_channels)
    placed = ((batch["mask"] > 0, put_batch({"image": batch["image"]}, mesh)["image"]) for batch in batches)
    made = ((real, compiled(tuned.params, tuned.model_state, image)) for real, image in placed)
    rows = [{name: np.asarray(value)[real] for name, value in found.items()} for real, found in one_late(made)]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def format_predictions(
    predictions: Predictions, class_names: Sequence[str], task: str, *, style: str = "table", top: int = 1
) -> str:
    """Predictions as text: a table, JSON or CSV, one row a picture, unreadable ones at the end."""
    rows = [
        _row(name, logits, class_names, task, top) for name, logits in zip(predictions.names, predictions.logits, strict=True)
    ]
    if style == "json":
        bad = [{"name": name, "error": reason} for name, reason in predictions.bad]
        return json.dumps([*rows, *bad], indent=2) + "\n"
    flat = [_flatten(row) for row in rows] + [{"name": name, "error": reason} for name, reason in predictions.bad]
    columns = list(dict.fromkeys(key for row in flat for key in row))
    if style == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(flat)
        return text.getvalue()
    cells = [columns, *([str(row.get(column, "")) for column in columns] for row in flat)]
    return "".join(f"{line}\n" for line in aligned(cells))


def _row(name: str, logits: np.ndarray, class_names: Sequence[str], task: str, top: int) -> dict[str, Any]:
    if task == "regression":
        return {"name": name, "value": float(logits[0])}
    if task == "multilabel":
        probability = 1 / (1 + np.exp(-logits))
        return {
            "name": name,
            "labels": {class_names[i]: float(probability[i]) for i in np.flatnonzero(probability > 0.5).tolist()},
        }
    probability = scores.softmax(logits[None])[0]
    best = np.argsort(-probability, kind="stable")[: max(1, min(top, len(class_names)))].tolist()
    return {"name": name, "classes": [{"class": class_names[i], "probability": float(probability[i])} for i in best]}


def _flatten(row: dict[str, Any]) -> dict[str, str]:
    flat = {"name": row["name"]}
    if "value" in row:
        flat["value"] = f"{row['value']:.6g}"
    elif "labels" in row:
        flat["labels"] = ";".join(row["labels"])
        flat["probabilities"] = ";".join(f"{value:.4f}" for value in row["labels"].values())
    else:
        for rank, entry in enumerate(row["classes"], start=1):
            suffix = "" if rank == 1 else f"_{rank}"
            flat[f"class{suffix}"] = entry["class"]
            flat[f"probability{suffix}"] = f"{entry['probability']:.4f}"
    return flat
