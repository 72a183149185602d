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


def classification_metrics(num_classes: int) -> type[clu_metrics.Collection]:
    """`loss`, `accuracy` and, for more than five classes, `top5` of single-label outputs."""
    wanted: dict[str, type[clu_metrics.Metric]] = {"loss": _weighted("loss"), "accuracy": _weighted("correct")}
    if num_classes > 5:
        wanted["top5"] = _weighted("correct5")
    return clu_metrics.Collection.create(**wanted)


def multilabel_metrics() -> type[clu_metrics.Collection]:
    """`loss` and `accuracy`, the share of labels that are right at the threshold 0.5."""
    return clu_metrics.Collection.create(loss=_weighted("loss"), accuracy=_weighted("labels_right"))


def regression_metrics() -> type[clu_metrics.Collection]:
    """`loss` and `mae`, the mean absolute error."""
    return clu_metrics.Collection.create(loss=_weighted("loss"), mae=_weighted("absolute_error"))


def with_grad_norm(collection: type[clu_metrics.Collection]) -> type[clu_metrics.Collection]:
    """Adds `grad_norm`, the average over steps of the trainable gradient's norm before clipping."""
    return clu_metrics.Collection.create(**collection.__annotations__, grad_norm=clu_metrics.Average.from_output("grad_norm"))


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
    return {name: float(np.asarray(value)) for name, value in collection.compute().items()}


def merge(collections: list[Any]) -> Any:
    """Merges collections in order, from the left."""
    merged = collections[0]
    for collection in collections[1:]:
        merged = merged.merge(collection)
    return merged


Figures = Mapping[str, float]
