"""Figures with confidence intervals, and the files that keep them."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxft.columns import aligned
from jaxft.data import Source
from jaxft.evaluate import Evaluation, bootstrap_interval, scores
from jaxft.files import write_whole
from jaxft.tasks import UNLABELLED, Task


@dataclasses.dataclass(frozen=True)
class Judged:
    """An evaluation with intervals.

    Attributes:
      figures: metric name -> value over the whole split.
      intervals: metric name -> 95 % bootstrap interval over examples, for the metrics that are means over examples.
      classes: for single-label tasks, a dict a class: name, support, precision, recall, f1.
      count: number of examples judged.
    """

    figures: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    classes: tuple[dict[str, Any], ...]
    count: int


def judge(evaluation: Evaluation, task: Task, class_names: Sequence[str]) -> Judged:
    """Summarises an evaluation; see `jaxft.evaluate.scores` for the definitions."""
    figures = dict(evaluation.metrics)
    intervals: dict[str, tuple[float, float]] = {}
    classes: tuple[dict[str, Any], ...] = ()
    logits, labels = evaluation.logits, evaluation.labels
    if task.name in ("classify", "soft"):
        labels = _classes(labels)
        predicted = logits.argmax(-1)
        # A row with a NaN counts as wrong, as in the figure itself.
        right = (predicted == labels) & ~np.isnan(logits).any(-1)
        intervals["accuracy"] = bootstrap_interval(right.astype(np.float64))
        confusion = scores.confusion_matrix(labels, predicted, len(class_names))
        precision, recall, f1 = scores.precision_recall_f1(confusion)
        figures["macro_f1"] = float(scores.macro_f1(confusion))
        classes = tuple(
            {
                "name": name,
                "support": int(confusion[index].sum()),
                "precision": float(precision[index]),
                "recall": float(recall[index]),
                "f1": float(f1[index]),
            }
            for index, name in enumerate(class_names)
        )
    elif task.name == "multilabel":
        figures["mean_average_precision"] = float(scores.mean_average_precision(labels, logits))
        right = ((logits > 0) == (labels > 0.5)) & ~np.isnan(logits)
        intervals["accuracy"] = bootstrap_interval(right.mean(-1))
    elif task.name == "regression":
        figures |= {name: float(value) for name, value in scores.regression_scores(labels, logits[..., 0]).items()}
    return Judged(figures, intervals, classes, evaluation.count)


def _classes(labels: np.ndarray) -> np.ndarray:
    """The class of each example [N]; of soft labels [N, K], the one with the largest share."""
    return labels.argmax(-1) if labels.ndim == 2 else labels


def table(before: Judged, after: Judged, step: int) -> str:
    """The before/after table as text, and the count of examples it rests on."""
    rows = [("", "before", f"after (step {step})")]
    for name in after.figures:
        rows.append((name, _figure(before, name), _figure(after, name)))
    return "\n".join(aligned(rows))


def _figure(judged: Judged, name: str) -> str:
    value = judged.figures[name]
    if name in judged.intervals:
        low, high = judged.intervals[name]
        return f"{value:.2%} [{low:.2%}, {high:.2%}]"
    return f"{value:.4f}"


def write_report(
    workdir: Path,
    before: Judged,
    after: Judged,
    evaluation: Evaluation,
    source: Source,
    task: Task,
    class_names: Sequence[str],
    *,
    title: str,
    split: str,
    step: int,
) -> str:
    """Writes report.md, report.json and predictions.csv; returns the text of report.md."""
    names = [source.names[index] for index in evaluation.index]
    write_whole(workdir / "predictions.csv", _predictions(names, evaluation, task, class_names))
    lines = [
        f"# {title}",
        "",
        f"{split} split: evaluated {after.count} of {len(source)}; intervals are 95 % bootstrap intervals over examples.",
        "",
        "```",
        table(before, after, step),
        "```",
    ]
    if after.classes:
        lines += ["", "| class | examples | precision | recall | F1 |", "|---|---|---|---|---|"]
        lines += [
            f"| {row['name']} | {row['support']} | {row['precision']:.3f} | {row['recall']:.3f} | {row['f1']:.3f} |"
            for row in after.classes
        ]
    text = "\n".join(lines) + "\n"
    write_whole(workdir / "report.md", text)
    record = {
        "title": title,
        "split": split,
        "step": step,
        "before": dataclasses.asdict(before),
        "after": dataclasses.asdict(after),
    }
    write_whole(workdir / "report.json", json.dumps(record, indent=2) + "\n")
    return text


def _predictions(names: Sequence[str], evaluation: Evaluation, task: Task, class_names: Sequence[str]) -> str:
    """The text of predictions.csv."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    if task.name in ("classify", "soft"):
        probability = scores.softmax(evaluation.logits)
        writer.writerow(["name", "label", "predicted", "probability"])
        for name, label, row in zip(names, _classes(evaluation.labels), probability, strict=True):
            best = int(row.argmax())
            writer.writerow([name, class_names[int(label)], class_names[best], f"{row[best]:.6f}"])
    elif task.name == UNLABELLED:
        writer.writerow(["name", "loss"])
        writer.writerows([name, f"{loss:.6f}"] for name, loss in zip(names, evaluation.losses, strict=True))
    else:
        columns = list(class_names) if task.name == "multilabel" else ["value"]
        # The logarithm of 1 / (1 + exp(-x)) overflows for no x.
        outputs = np.exp(-np.logaddexp(0, -evaluation.logits)) if task.name == "multilabel" else evaluation.logits
        writer.writerow(["name", *columns])
        for name, row in zip(names, outputs, strict=True):
            writer.writerow([name, *(f"{value:.6f}" for value in row)])
    return text.getvalue()
