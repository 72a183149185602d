"""Losses against another network's answers: `teacher(image) -> Outputs`, of the network of `config.teacher.run`.

The teacher sees the very pixels that the network sees, augmented and mixed as they are, as Beyer et al. (2022) ask for. In an
evaluation there is none: what is reported is the loss against the labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxft.errors import JaxftError
from jaxft.losses.supervised import softmax_cross_entropy
from jaxft.typing import Batch, Outputs

Teacher = Callable[[jax.Array], Outputs]


def distillation(
    outputs: Outputs,
    batch: Batch,
    *,
    teacher: Teacher | None,
    temperature: float = 4.0,
    weight: float = 0.9,
    label_smoothing: float = 0.0,
    classes: Sequence[int] | None = None,
    teacher_classes: ArrayLike | None = None,
) -> jax.Array:
    """`(1 - weight) * cross-entropy + weight * T^2 * KL(teacher || network)` [B], both softened by T (Hinton et al., 2015).

    `weight=1, temperature=1` with a strong `config.input.augment`, mixup among it, and many epochs is the patient and
    consistent teacher (Beyer et al., 2022).

    Args:
      outputs, batch: `logits` [B, K]; `image`; `label` [B] (classes) or [B, K] (probabilities).
      teacher: see the module; None gives the cross-entropy alone.
      temperature: T, positive.
      weight: in [0, 1].
      label_smoothing: of the cross-entropy.
      classes: the places of those whose answers are compared; None: of all that both know.
      teacher_classes: see `jaxft.losses`; None: the same K.

    Raises:
      JaxftError: a setting out of its range, or no class that both know.
    """
    if not temperature > 0:
        raise JaxftError(f"temperature is {temperature}: it must be positive, e.g. 4")
    if not 0 <= weight <= 1:
        raise JaxftError(f"weight is {weight}: it must lie between 0 and 1")
    plain = softmax_cross_entropy(outputs, batch, label_smoothing=label_smoothing)
    if teacher is None:
        return plain
    theirs, ours = teacher(batch["image"])["logits"], outputs["logits"]
    if teacher_classes is not None or classes is not None:
        places = np.arange(theirs.shape[-1]) if teacher_classes is None else np.asarray(teacher_classes)
        known = np.flatnonzero((places >= 0) if classes is None else np.isin(places, np.asarray(classes)))
        if not known.size:
            raise JaxftError("the teacher knows none of the classes: distil its maps with feature_distillation")
        theirs, ours = theirs[:, known], ours[:, places[known]]
    p, q = (jax.nn.log_softmax(logits / temperature) for logits in (theirs, ours))
    return (1 - weight) * plain + weight * temperature**2 * (jnp.exp(p) * (p - q)).sum(-1)


def feature_distillation(
    outputs: Outputs,
    batch: Batch,
    *,
    teacher: Teacher | None,
    kind: str = "attention",
    stages: Sequence[str] = (),
    weight: float = 1000.0,
    label_smoothing: float = 0.0,
) -> jax.Array:
    """Cross-entropy plus `weight` times how far the maps of stages are from the teacher's, [B].

    Neither kind has parameters of its own, and neither asks for as many channels; other sizes of maps are resized to the
    network's.

    - "attention": where a map is large. The mean over channels of its squares, brought to length 1; the mean squared
      difference, summed over stages (Zagoruyko & Komodakis, 2017; their code's weight is 1000).
    - "similarity": which examples of the batch are alike. The products of all pairs of maps, each row brought to length 1; the
      mean squared difference, summed over stages (Tung & Mori, 2019; 3000).

    Args:
      outputs, batch: see `jaxft.typing`.
      teacher: see the module; None gives the cross-entropy alone.
      kind: see above.
      stages: which; () is all stages by the names `stage...` that both have ("attention"), or the last one ("similarity").
      weight: at least 0.
      label_smoothing: of the cross-entropy.

    Raises:
      JaxftError: no such kind, or a stage that one of the networks does not have.
    """
    distances = {"attention": _attention_distance, "similarity": _similarity_distance}
    if kind not in distances:
        raise JaxftError(f"kind is '{kind}', not {' or '.join(map(repr, distances))}")
    if not weight >= 0:
        raise JaxftError(f"weight is {weight}: it must be at least 0")
    plain = softmax_cross_entropy(outputs, batch, label_smoothing=label_smoothing)
    if teacher is None:
        return plain
    theirs = teacher(batch["image"])
    common = [name for name in outputs if name.startswith("stage") and name in theirs]
    for name in (chosen := list(stages) or (common if kind == "attention" else common[-1:])):
        for whose, maps in (("the network", outputs), ("the teacher", theirs)):
            if name not in maps:
                raise JaxftError(f"{whose} has no stage '{name}'; both have {', '.join(common) or 'none'}")
    if not chosen:
        raise JaxftError("the network and its teacher have no stage of one name: say which with stages")
    weights = batch.get("mask", jnp.ones(plain.shape))
    return plain + weight * sum(distances[kind](outputs[name], theirs[name], weights) for name in chosen)


def _attention_distance(ours: jax.Array, theirs: jax.Array, weights: jax.Array) -> jax.Array:
    """[B]."""
    del weights
    mine, other = _energy(ours), _energy(theirs)
    if other.shape != mine.shape:
        other = jax.image.resize(other, mine.shape, "linear")
    return ((_unit(mine.reshape(len(mine), -1)) - _unit(other.reshape(len(mine), -1))) ** 2).mean(-1)


def _energy(maps: jax.Array) -> jax.Array:
    """Maps [B, H, W, C], or tokens [B, P + H * W, D] with a square of patches last -> mean squares [B, H, W] f32."""
    squares = (maps.astype(jnp.float32) ** 2).mean(-1)
    if squares.ndim == 2:
        side = math.isqrt(squares.shape[1])
        squares = squares[:, -side * side :].reshape(-1, side, side)
    return squares


def _similarity_distance(ours: jax.Array, theirs: jax.Array, weights: jax.Array) -> jax.Array:
    """[B], times B, so that the mean over the batch is that of the B x B differences' squares."""
    used = (weights > 0).astype(jnp.float32)

    def alike(maps: jax.Array) -> jax.Array:
        flat = maps.reshape(len(maps), -1).astype(jnp.float32)
        return _unit((flat @ flat.T) * used)

    return ((alike(ours) - alike(theirs)) ** 2).sum(-1) / jnp.maximum(used.sum(), 1)


def _unit(rows: jax.Array) -> Any:
    """Each row [B, N] brought to length 1; zeros stay."""
    square = (rows**2).sum(-1, keepdims=True)
    return rows * jax.lax.rsqrt(jnp.maximum(square, 1e-24))
