"""Losses that learn a representation: of pictures without labels, or of labels that say only which pictures belong together.

They read what no classifier gives: a projection, prototypes, or pixels. Their figure compares rows of a batch with each other
(`masked_autoencoder` excepted), so it depends on the size of the batch, and an evaluation is only like another of that size.
Rows of mask 0 are in no sum, neither as what is compared nor as what it is compared with. Under `jax.jit` the batch is that of
all devices; under a mapped axis it is a device's own share.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxft.errors import JaxftError
from jaxft.typing import Batch, Outputs


def simclr(outputs: Outputs, batch: Batch, *, temperature: float = 0.1) -> jax.Array:
    """NT-Xent [B] of the projections `logits` [B, D] (Chen et al., A simple framework for contrastive learning, 2020).

    Rows of equal `index` are views of one example. A row's loss is the cross-entropy of its other view among all other rows of
    the batch, by cosine similarity over the temperature; of more than two views the mean over the others. A row without
    another view has loss 0.

    Args:
      outputs: `logits` [B, D], of any length: they are normalised here.
      batch: `index` [B] int32; `mask` [B].
      temperature: of the similarities; the paper's best is 0.1 with large batches and long training, 0.5 with short ones.
    """
    return _contrast(outputs["logits"], _views(batch), batch, temperature)


def supervised_contrastive(outputs: Outputs, batch: Batch, *, temperature: float = 0.1) -> jax.Array:
    """The supervised contrastive loss [B], L_out of Khosla et al. (Supervised contrastive learning, 2020, equation 2).

    As `simclr`, where all rows of equal `label` are positives: the mean of their cross-entropies. A row whose class has no
    other row in the batch has loss 0.

    Args:
      outputs: `logits` [B, D], of any length: they are normalised here.
      batch: `label` [B] int, the class; `mask` [B].
      temperature: of the similarities; 0.1 in the paper.

    Raises:
      JaxftError: labels that are not one class an example.
    """
    label = batch["label"]
    if label.ndim != 1 or not jnp.issubdtype(label.dtype, jnp.integer):
        raise JaxftError(
            f"supervised_contrastive needs one class an example, not labels of shape {list(label.shape)} and type {label.dtype}"
        )
    return _contrast(outputs["logits"], label[:, None] == label, batch, temperature)


def dino(
    outputs: Outputs,
    batch: Batch,
    *,
    forward: Callable[..., Outputs],
    average: object,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.07,
    sinkhorn_steps: int = 3,
) -> jax.Array:
    """Self-distillation [B] over prototypes (Caron et al., Emerging properties in self-supervised vision transformers, 2021).

    The teacher is the running average of the network, in inference mode: it sees each view, and the student's row is to say of
    its view what the teacher says of the example's other views. What the paper's running centre does, keeping all examples
    from one prototype, Sinkhorn-Knopp does here over the batch (Caron et al., 2020; as in DINOv2): it has no state. All views
    are of one size. A row without another view has loss 0.

    Args:
      outputs: `logits` [B, K], of K prototypes.
      batch: `image`, `index` [B] int32, `mask` [B].
      forward, average: of the run; see `jaxft.typing.LossFn`.
      student_temperature, teacher_temperature: of the two softmaxes; the paper's are 0.1 and 0.04 to 0.07.
      sinkhorn_steps: 3, as in SwAV and DINOv2.
    """
    _check_temperature(student_temperature, "student_temperature")
    _check_temperature(teacher_temperature, "teacher_temperature")
    said = forward(batch["image"], train=False, params=average)["logits"]
    real = _real(batch, said)
    target = jax.lax.stop_gradient(sinkhorn(_wide(said) / teacher_temperature, real, steps=sinkhorn_steps))
    student = jnp.where(real[:, None], _wide(outputs["logits"]), 0)
    log_p = jax.nn.log_softmax(student / student_temperature)
    positive = _others(_views(batch), real).astype(log_p.dtype)
    share = positive / jnp.maximum(positive.sum(-1, keepdims=True), 1)
    return -((share @ target) * log_p).sum(-1)


def sinkhorn(logits: jax.Array, real: jax.Array, *, steps: int) -> jax.Array:
    """Shares [B, K] of K prototypes, near softmax(logits), that sum to 1 a row and over the batch use all prototypes alike.

    Args:
      logits: [B, K], over their temperature.
      real: bool [B]; the other rows are 0 and take no part.
      steps: of Sinkhorn & Knopp's alternation; after the last one rows sum to 1 exactly, prototypes nearly to B / K.
    """
    count, prototypes = jnp.maximum(real.sum(), 1).astype(logits.dtype), logits.shape[-1]
    # In logarithms: exp(1 / 0.04) against exp(-1 / 0.04) is more than f32 holds side by side.
    found = jnp.where(real[:, None], logits, -jnp.inf)
    for _ in range(steps):
        found = found - _logsumexp(found, axis=0) - jnp.log(jnp.asarray(prototypes, logits.dtype))
        found = found - _logsumexp(found, axis=1) - jnp.log(count)
    return jnp.exp(found) * count


def _logsumexp(x: jax.Array, axis: int) -> jax.Array:
    """Where all is minus infinity 0, so that it can be taken away."""
    found = jax.nn.logsumexp(x, axis=axis, keepdims=True)
    return jnp.where(jnp.isfinite(found), found, 0)


def masked_autoencoder(outputs: Outputs, batch: Batch) -> jax.Array:
    """The mean squared error [B] over masked patches (He et al., Masked autoencoders are scalable vision learners, 2022).

    Args:
      outputs: of a network with the head "mae": `logits` [B, N * P], the pixels of N patches; `target` [B, N, P], what they
        are, each patch normalised; `masked` [B, N], 1 where the network did not see the patch.
      batch: not read.

    Raises:
      JaxftError: the network has another head.
    """
    if "masked" not in outputs:
        raise JaxftError("masked_autoencoder needs a network that hides patches: set config.model.head='mae'")
    target, masked = outputs["target"], outputs["masked"]
    error = jnp.square(outputs["logits"].reshape(target.shape) - target).mean(-1)
    return (error * masked).sum(-1) / masked.sum(-1)


def _contrast(projection: jax.Array, positive: jax.Array, batch: Batch, temperature: float) -> jax.Array:
    """Mean over a row's positives of minus log(exp(s_positive) / sum over all other rows of exp(s)): [B].

    Args:
      projection: [B, D].
      positive: bool [B, B], with or without the row itself.
      batch: for its mask.
      temperature: of the similarities s.
    """
    _check_temperature(temperature, "temperature")
    real = _real(batch, projection)
    projection = _wide(jnp.where(real[:, None], projection, 0))  # a padded row may hold a NaN, and NaN times zero is NaN
    unit = projection * jax.lax.rsqrt(jnp.maximum(jnp.square(projection).sum(-1, keepdims=True), 1e-12))
    # Cosines need every digit: over the temperature an error of bfloat16 passes, as TPUs make by default, is ten times itself.
    similar = jnp.matmul(unit, unit.T, precision="highest") / temperature
    other = _others(jnp.ones_like(positive), real)
    # Finite, as the derivative where a row has no other is to be 0 and not NaN.
    log_p = similar - jax.nn.logsumexp(jnp.where(other, similar, -1e30), axis=-1, keepdims=True)
    chosen = other & positive
    return -jnp.where(chosen, log_p, 0).sum(-1) / jnp.maximum(chosen.sum(-1), 1)


def _views(batch: Batch) -> jax.Array:
    """Which rows show one example: bool [B, B]."""
    if "index" not in batch:
        raise JaxftError("the loss compares views of an example, and the batch has no `index` that says whose they are")
    return batch["index"][:, None] == batch["index"]


def _others(pairs: jax.Array, real: jax.Array) -> jax.Array:
    """`pairs` [B, B] without those of a row with itself, and without padding."""
    return pairs & ~jnp.eye(len(real), dtype=bool) & real & real[:, None]


def _real(batch: Batch, rows: jax.Array) -> jax.Array:
    """Which rows are examples: bool [B]."""
    return batch["mask"] > 0 if "mask" in batch else jnp.ones(len(rows), bool)


def _wide(x: jax.Array) -> jax.Array:
    """In f32, or wider."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _check_temperature(value: float, what: str) -> None:
    if not value > 0:
        raise JaxftError(f"{what} is {value}: it must be positive, e.g. 0.1")


#: The losses of this module: what they train is judged by them alone.
REPRESENTATION = (simclr, supervised_contrastive, dino, masked_autoencoder)
