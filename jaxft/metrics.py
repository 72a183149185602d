"""Metric accumulators: clu Collections, masked, merged as sums, so that padding and devices change nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics as clu_metrics


def _weighted(name: str) -> type[clu_metrics.Average]:
    """The average of a model output [B], weighted by the batch's mask."""

    @flax.struct.dataclass
    class WeightedAverage(clu_metrics.Average):
        @classmethod
        def empty(cls) -> WeightedAverage:
            # Counts are sums of weights. clu's own empty average counts in integers, and what is restored takes its dtypes.
            return cls(total=jnp.zeros((), jnp.float32), count=jnp.zeros((), jnp.float32))

        @classmethod
        def from_model_output(cls, *, mask: jax.Array, **outputs: jax.Array) -> WeightedAverage:
            values = outputs[name].astype(jnp.float32)
            # where, not times: a padded row may hold a NaN.
            return cls(total=jnp.where(mask > 0, values * mask, 0).sum(), count=mask.sum())

    return WeightedAverage


@flax.struct.dataclass
class BalancedAccuracy(clu_metrics.Metric):
    """The mean over the classes that occur of the share that is right (recall), as scikit-learn's balanced_accuracy_score.

    Attributes:
      right, count: [K] f32, sums of weights: of the examples of each class that are right, and of all.
    """

    right: jax.Array
    count: jax.Array

    @classmethod
    def empty(cls) -> BalancedAccuracy:
        """Of no example, whatever the number of classes: the zeros [] broadcast."""
        return cls(right=jnp.zeros((), jnp.float32), count=jnp.zeros((), jnp.float32))

    @classmethod
    def from_model_output(
        cls, *, correct: jax.Array, logits: jax.Array, label: jax.Array, mask: jax.Array, **outputs: jax.Array
    ) -> BalancedAccuracy:
        classes = label.argmax(-1) if label.ndim == 2 else label
        # A label beyond the classes is of none of them.
        weight = jnp.where(classes[:, None] == jnp.arange(logits.shape[-1]), mask[:, None], 0)  # [B, K]
        return cls(right=jnp.where(correct[:, None], weight, 0).sum(0), count=weight.sum(0))

    def merge(self, other: BalancedAccuracy) -> BalancedAccuracy:
        return BalancedAccuracy(self.right + other.right, self.count + other.count)

    def compute(self) -> np.ndarray:
        """f64 []; NaN of no example."""
        right, count = np.asarray(self.right, np.float64), np.asarray(self.count, np.float64)
        present = count > 0
        return np.asarray(np.mean(right[present] / count[present]) if present.any() else np.nan)


def classification_metrics(num_classes: int) -> type[clu_metrics.Collection]:
    """`loss`, `accuracy`, `balanced_accuracy` and, for more than five classes, `top5` of single-label outputs."""
    wanted: dict[str, type[clu_metrics.Metric]] = {"loss": _weighted("loss"), "accuracy": _weighted("correct")}
    wanted["balanced_accuracy"] = BalancedAccuracy
    if num_classes > 5:
        wanted["top5"] = _weighted("correct5")
    return clu_metrics.Collection.create(**wanted)


def multilabel_metrics() -> type[clu_metrics.Collection]:
    """`loss` and `accuracy`, the share of labels that are right at the threshold 0.5."""
    return clu_metrics.Collection.create(loss=_weighted("loss"), accuracy=_weighted("labels_right"))


def regression_metrics() -> type[clu_metrics.Collection]:
    """`loss` and `mae`, the mean absolute error."""
    return clu_metrics.Collection.create(loss=_weighted("loss"), mae=_weighted("absolute_error"))


def loss_metrics() -> type[clu_metrics.Collection]:
    """`loss` alone: of outputs that are neither classes nor values."""
    return clu_metrics.Collection.create(loss=_weighted("loss"))


@flax.struct.dataclass
class NonFinite(clu_metrics.Metric):
    """Steps whose loss or gradient held a NaN or an infinity. It is no figure: what reads it is the loop.

    Attributes:
      steps: how many.
      first: of the first of them, what was not finite first: 0 is the loss, 1 + i the gradient of the i-th trained leaf.
      leaves: of the first of them, how many of those were not finite.
    """

    steps: jax.Array
    first: jax.Array
    leaves: jax.Array

    @classmethod
    def empty(cls) -> NonFinite:
        return cls(*(jnp.zeros((), jnp.int32) for _ in range(3)))

    @classmethod
    def from_model_output(cls, *, finite: jax.Array, **outputs: jax.Array) -> NonFinite:
        """`finite` is bool [1 + number of trained leaves]."""
        bad = ~finite
        return cls(bad.any().astype(jnp.int32), bad.argmax().astype(jnp.int32), bad.sum(dtype=jnp.int32))

    def merge(self, other: NonFinite) -> NonFinite:
        earlier = self.steps > 0  # as a factor: works on NumPy's arrays, on the host, and on traced ones
        return NonFinite(
            self.steps + other.steps,
            earlier * self.first + (1 - earlier) * other.first,
            earlier * self.leaves + (1 - earlier) * other.leaves,
        )

    def compute(self) -> None:
        return None


def training_metrics(collection: type[clu_metrics.Collection]) -> type[clu_metrics.Collection]:
    """Adds `grad_norm`, the average over steps of the trainable gradient's norm before clipping, and `nonfinite`.

    Leaves `balanced_accuracy` out: what devices tell each other each step, and what waits for its log line, stay a few numbers.
    """
    figures = {name: kind for name, kind in collection.__annotations__.items() if kind is not BalancedAccuracy}
    return clu_metrics.Collection.create(**figures, grad_norm=clu_metrics.Average.from_output("grad_norm"), nonfinite=NonFinite)


def model_outputs(logits: jax.Array, label: jax.Array, loss: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
    """What the metrics of this module are made from, [B] each, in the shape of the label's kind.

    Args:
      logits: [B, K].
      label: [B] int (classes), [B, K] (multi-label or soft labels) or [B] float (regression).
      loss: [B].
      mask: [B].
    """
    found = {"loss": loss, "mask": mask, "logits": logits, "label": label}
    if label.ndim == 1 and not jnp.issubdtype(label.dtype, jnp.integer):
        found["absolute_error"] = jnp.abs(logits.reshape(label.shape) - label)
        return found
    # A NaN is larger than nothing: what holds one counts as wrong, as does a label beyond the classes.
    number = ~jnp.isnan(logits)
    if label.ndim == 2:
        found["labels_right"] = (((logits > 0) == (label > 0.5)) & number).mean(-1)
        label = label.argmax(-1)  # of soft labels, the class with the largest share
    chosen = jnp.take_along_axis(logits, label[:, None], axis=-1)
    # Rank of the label: classes with a larger logit, and equal ones that stand before it, as argmax and top_k rank.
    before = jnp.arange(logits.shape[-1]) < label[:, None]
    rank = ((logits > chosen) | ((logits == chosen) & before)).sum(-1)
    valid = number.all(-1) & (label >= 0) & (label < logits.shape[-1])
    found["correct"], found["correct5"] = (rank == 0) & valid, (rank < 5) & valid
    return found


def to_floats(collection: Any) -> dict[str, float]:
    """Computes a collection's figures as Python floats."""
    return {name: float(np.asarray(value)) for name, value in collection.compute().items() if value is not None}


def merge(collections: list[Any]) -> Any:
    """Merges collections in order, from the left."""
    merged = collections[0]
    for collection in collections[1:]:
        merged = merged.merge(collection)
    return merged


Figures = Mapping[str, float]
