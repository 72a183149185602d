"""The pictures to label next, by what a fine-tuned run says of them."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from jaxft import tree
from jaxft.active.badge import badge
from jaxft.active.coreset import k_center_greedy
from jaxft.active.uncertainty import entropy, least_confidence, margin, most
from jaxft.errors import JaxftError, near
from jaxft.evaluate.scores import softmax
from jaxft.finetuned import FineTuned
from jaxft.predict import readable, run_data, run_over
from jaxft.typing import ModelState, Outputs, Params
from jaxft.workdir import load_run

_SCORES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "entropy": entropy,
    "margin": margin,
    "least_confidence": least_confidence,
}
METHODS = (*_SCORES, "badge", "coreset")


@dataclasses.dataclass(frozen=True)
class Selection:
    """Pictures to label, the first to be labelled first.

    Attributes:
      method: one of `METHODS`.
      names: their paths, as they were found.
      scores: what each was chosen for: the method's uncertainty; of "badge" the squared distance of its embedding, of "coreset"
        the distance of its features, from the nearest one before it (of "badge" infinite for the first).
      classes, probabilities: the likeliest class of each, and how likely.
      notes: lines for the user: pictures that could not be read, fewer pictures than asked for.
    """

    method: str
    names: tuple[str, ...]
    scores: np.ndarray
    classes: tuple[str, ...]
    probabilities: np.ndarray
    notes: tuple[str, ...]

    def to_csv(self) -> str:
        """`path,score,class,probability`, a picture a row."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("path", "score", "class", "probability"))
        for name, score, label, probability in zip(self.names, self.scores, self.classes, self.probabilities, strict=True):
            writer.writerow((name, f"{score:.6g}", label, f"{probability:.4f}"))
        return text.getvalue()


def select_files(
    workdir: str | Path, paths: Sequence[str | Path], count: int, *, method: str = "badge", seed: int = 0, batch_size: int = 64
) -> Selection:
    """Chooses, of pictures without a label, those that a run's network would learn most from.

    Args:
      workdir: of the run; of "coreset" its data must be there too: what lies near a training picture is not chosen.
      paths: picture files, or folders with pictures in them.
      count: how many; all where there are fewer.
      method: "entropy", "margin", "least_confidence", "badge" or "coreset"; see `jaxft.active`.
      seed: of "badge".
      batch_size: rounded up to a multiple of the devices.

    Raises:
      JaxftError: no such run, method or path, a run whose labels are not one class a picture, no picture that can be read.
    """
    if method not in METHODS:
        raise JaxftError(f"no selection is called '{method}'{near(method, METHODS)}; there are {', '.join(METHODS)}")
    if count < 1:
        raise JaxftError(f"the count is {count}: it must be at least 1")
    tuned = load_run(workdir)
    if tuned.task not in ("classify", "soft"):
        raise JaxftError(f"the run's task is '{tuned.task}': pictures are chosen by the probabilities of classes")
    source, bad = readable(tuned, paths)
    found = run_over(tuned, source, _outputs(tuned), batch_size=batch_size)
    probabilities = softmax(found["logits"])
    if method in _SCORES:
        every = _SCORES[method](probabilities)
        chosen = most(every, count)
        scores = every[chosen]
    elif method == "badge":
        chosen, scores = badge(probabilities, found["features"], count, seed=seed)
    else:
        train = run_data(tuned, workdir).train
        labelled = run_over(tuned, train, _outputs(tuned), batch_size=batch_size)["features"]
        chosen, scores = k_center_greedy(found["features"], labelled, count)
    notes = [f"left out: {name}: {reason}" for name, reason in bad]
    if len(chosen) < count:
        notes.append(f"there are {len(chosen)} pictures, fewer than the {count} asked for: all are listed")
    best = probabilities[chosen].argmax(-1)
    return Selection(
        method,
        tuple(source.names[index] for index in chosen),
        scores,
        tuple(tuned.class_names[index] for index in best),
        probabilities[chosen, best],
        tuple(notes),
    )


def _outputs(tuned: FineTuned) -> Callable[[Params, ModelState, jax.Array], Outputs]:
    """`logits` [B, K], and as `features` [B, D] what the last layer reads: of an "mlp" head its hidden layer."""

    def outputs(params: Params, model_state: ModelState, image: jax.Array) -> Outputs:
        found, _ = tuned.apply(params, model_state, image, train=False, rng=None)
        features = found["features"]
        if tuned.record["model"]["head"] == "mlp":
            flat = tree.flatten(params)
            (kernel,) = [path for path in flat if path.endswith("/hidden/kernel") and tuned.model.stage_of(path) == "head"]
            bias = flat[kernel.removesuffix("kernel") + "bias"]
            features = jax.nn.relu(features @ flat[kernel] + bias)
        return {"logits": found["logits"], "features": features}

    return outputs
