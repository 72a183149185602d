"""Losses against labels: cross-entropies, focal losses, squared error; and the weights of classes they take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from jaxft.errors import JaxftError, near
from jaxft.typing import Batch, Outputs

#: Weights of classes: one of `SCHEMES`, or a number a class.
ClassWeights = str | Sequence[float]
SCHEMES = ("balanced", "sqrt", "effective")


def class_weights(
    weights: ClassWeights, num_classes: int, counts: ArrayLike | None = None, *, beta: float = 0.999
) -> np.ndarray:
    """The weight of each class, f32 [K].

    Args:
      weights: K numbers, taken as they are. Or "balanced", 1 / count; "sqrt", 1 / sqrt(count); "effective",
        (1 - beta) / (1 - beta^count) (Cui et al., 2019): these are scaled so that the mean over the training examples is 1,
        which leaves the learning rate its meaning. So "balanced" is n / (K * count), as in scikit-learn; K counts the classes
        that occur, the others weigh 0.
      num_classes: K.
      counts: [K], the training examples of each class.
      beta: of "effective", in [0, 1): 0 weighs all alike, near 1 it is "balanced".

    Raises:
      JaxftError: no such scheme, no counts for it, or not K finite numbers of at least 0.
    """
    if not isinstance(weights, str):
        return _per_class(weights, num_classes, "class_weights").astype(np.float32)
    if weights not in SCHEMES:
        raise JaxftError(
            f"class_weights is '{weights}'{near(weights, SCHEMES)}: it takes {', '.join(map(repr, SCHEMES))} or a number for "
            f"each of the {num_classes} classes"
        )
    if not 0 <= beta < 1:
        raise JaxftError(f"beta is {beta}: it must be at least 0 and less than 1")
    known = _counts(counts, num_classes, f"class_weights='{weights}'")
    present = known[known > 0]
    with np.errstate(divide="ignore"):
        inverse = {
            "balanced": 1 / present,
            "sqrt": present**-0.5,
            "effective": (1 - beta) / -np.expm1(present * np.log(beta)),
        }[weights]
    found = np.zeros(num_classes)
    found[known > 0] = inverse * present.sum() / (present * inverse).sum()
    return found.astype(np.float32)


def _per_class(values: Any, num_classes: int, what: str) -> np.ndarray:
    """Finite numbers of at least 0, one a class, f64 [K]."""
    try:
        found = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        found = np.full(1, np.nan)
    if found.shape != (num_classes,) or not np.isfinite(found).all() or (found < 0).any():
        raise JaxftError(f"{what} is {values!r}: expected {num_classes} numbers of at least 0, one a class")
    return found


def _numbers(value: Any, num_classes: int, what: str) -> np.ndarray:
    """One number for all classes, or one a class: f32 [K]."""
    values = [value] * num_classes if isinstance(value, int | float) else value
    return _per_class(values, num_classes, what).astype(np.float32)


def _counts(counts: ArrayLike | None, num_classes: int, what: str) -> np.ndarray:
    if counts is None:
        raise JaxftError(f"{what} needs class_counts, the {num_classes} numbers of training examples; a regression has none")
    known = _per_class(counts, num_classes, "class_counts")
    if not known.any():
        raise JaxftError("class_counts are all 0: there are no training examples")
    return known


def soft_target(logits: jax.Array, label: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Probabilities [B, K] of `label` [B] (classes) or [B, K]: `(1 - e) * label + e / K`, as in Szegedy et al. (2016)."""
    classes = logits.shape[-1]
    target = jax.nn.one_hot(label, classes) if label.ndim == logits.ndim - 1 else label
    return (1 - label_smoothing) * target + label_smoothing / classes


def softmax_cross_entropy(
    outputs: Outputs,
    batch: Batch,
    *,
    label_smoothing: float = 0.0,
    class_weights: ClassWeights | None = None,
    beta: float = 0.999,
    class_counts: ArrayLike | None = None,
    train: bool = True,
) -> jax.Array:
    """Cross-entropy [B] of `logits` [B, K] with `label` [B] (classes) or [B, K] (probabilities).

    `label_smoothing` and `class_weights` mean what they mean in torch: each class's part of the sum is weighted, also of soft
    and smoothed labels. The mean over a batch is over examples, where torch's is over weights.

    Args:
      outputs, batch: see `jaxft.typing`.
      label_smoothing: e, in [0, 1).
      class_weights, beta: see `jaxft.losses.class_weights`; None weighs all alike.
      class_counts, train: see `jaxft.losses`.
    """
    target = soft_target(outputs["logits"], batch["label"], label_smoothing)
    return optax.softmax_cross_entropy(outputs["logits"], _weighted(target, class_weights, beta, class_counts, train))


def _weighted(target: jax.Array, weights: ClassWeights | None, beta: float, counts: ArrayLike | None, train: bool) -> jax.Array:
    """[B, K] times the weights of the classes, where there are any and it is training."""
    if weights is None or not train:
        return target
    return target * class_weights(weights, target.shape[-1], counts, beta=beta)


def logit_adjusted(
    outputs: Outputs,
    batch: Batch,
    *,
    tau: float = 1.0,
    label_smoothing: float = 0.0,
    class_counts: ArrayLike | None = None,
    train: bool = True,
) -> jax.Array:
    """Cross-entropy [B] of `logits + tau * log(prior)` (Menon et al., Long-tail learning via logit adjustment, 2021).

    Trained so, the plain logits are best for balanced accuracy: evaluations and predictions do not adjust. `prior` is each
    class's share of the training examples; a class without any counts as if it had one.

    Args:
      outputs, batch, label_smoothing: as of `softmax_cross_entropy`.
      tau: 1 in the paper; 0 is `softmax_cross_entropy`.
      class_counts, train: see `jaxft.losses`.
    """
    logits = outputs["logits"]
    if train:
        known = np.maximum(_counts(class_counts, logits.shape[-1], "logit_adjusted"), 1)
        logits = logits + tau * np.log(known / known.sum()).astype(np.float32)
    return optax.softmax_cross_entropy(logits, soft_target(logits, batch["label"], label_smoothing))


def binary_cross_entropy(
    outputs: Outputs,
    batch: Batch,
    *,
    class_weights: ClassWeights | None = None,
    pos_weight: str | float | Sequence[float] | None = None,
    beta: float = 0.999,
    class_counts: ArrayLike | None = None,
    num_examples: int | None = None,
    train: bool = True,
) -> jax.Array:
    """Mean over the K labels of the sigmoid cross-entropy [B]; `label` [B, K] in 0..1.

    Args:
      outputs, batch: see `jaxft.typing`.
      class_weights, beta: of the labels, be they positive or not; see `jaxft.losses.class_weights`. Counts are of positives.
      pos_weight: of the positives of each label, as in torch: a number, K numbers, or "balanced", negatives / positives (1 for
        a label that has but one of them).
      class_counts, num_examples, train: see `jaxft.losses`.
    """
    logits, label = outputs["logits"], batch["label"]
    if pos_weight is None or not train:
        found = optax.sigmoid_binary_cross_entropy(logits, label)
    else:
        weight = _pos_weight(pos_weight, logits.shape[-1], class_counts, num_examples)
        found = -weight * label * jax.nn.log_sigmoid(logits) - (1 - label) * jax.nn.log_sigmoid(-logits)
    return _weighted(found, class_weights, beta, class_counts, train).mean(-1)


def _pos_weight(weight: Any, num_classes: int, counts: ArrayLike | None, num_examples: int | None) -> np.ndarray:
    """f32 [K]."""
    if isinstance(weight, str) and weight != "balanced":
        raise JaxftError(f"pos_weight is '{weight}': it takes a number, {num_classes} numbers or 'balanced'")
    if not isinstance(weight, str):
        return _numbers(weight, num_classes, "pos_weight")
    positive = _counts(counts, num_classes, "pos_weight='balanced'")
    if num_examples is None:
        raise JaxftError("pos_weight='balanced' needs num_examples, the number of training examples")
    negative = num_examples - positive
    both = (positive > 0) & (negative > 0)
    return np.where(both, negative / np.where(both, positive, 1), 1).astype(np.float32)


def focal(
    outputs: Outputs,
    batch: Batch,
    *,
    gamma: float = 2.0,
    alpha: float | Sequence[float] | None = None,
    class_weights: ClassWeights | None = None,
    beta: float = 0.999,
    class_counts: ArrayLike | None = None,
    train: bool = True,
) -> jax.Array:
    """Softmax focal loss [B], the sum over classes of `label * alpha * (1 - p)^gamma * -log(p)` (Lin et al., 2017).

    Args:
      outputs, batch: `logits` [B, K]; `label` [B] (classes) or [B, K] (probabilities).
      gamma: 0 is cross-entropy.
      alpha: of the whole loss, or K numbers, one a class; part of the loss, in evaluations too. None leaves it.
      class_weights, beta: see `jaxft.losses.class_weights`; they multiply what `alpha` gives.
      class_counts, train: see `jaxft.losses`.
    """
    logits = outputs["logits"]
    target = soft_target(logits, batch["label"])
    # A class ruled out by a logit of minus infinity is no part of a label, and 0 times infinity is no number.
    log_p = jnp.where(target > 0, jax.nn.log_softmax(logits), 0)
    # 1 - p, exact near 0; kept off 0, where a power below 1 has no derivative.
    missed = jnp.maximum(-jnp.expm1(log_p), jnp.finfo(log_p.dtype).tiny)
    found = -target * missed**gamma * log_p
    if alpha is not None:
        found = found * _numbers(alpha, logits.shape[-1], "alpha")
    return _weighted(found, class_weights, beta, class_counts, train).sum(-1)


def sigmoid_focal(outputs: Outputs, batch: Batch, *, gamma: float = 2.0, alpha: float | None = 0.25) -> jax.Array:
    """Mean over the K labels of the sigmoid focal loss [B] (Lin et al., 2017); `alpha` weighs positives, None neither."""
    return optax.sigmoid_focal_loss(outputs["logits"], batch["label"], alpha=alpha, gamma=gamma).mean(-1)


def mean_squared_error(outputs: Outputs, batch: Batch) -> jax.Array:
    """Squared error [B]; `label` [B] against `logits` [B, 1], or [B, K] averaged over K."""
    logits, label = outputs["logits"], batch["label"]
    label = label.reshape(logits.shape)
    return ((logits - label) ** 2).mean(-1)
