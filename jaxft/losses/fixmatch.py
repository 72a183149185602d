"""FixMatch: pictures without labels are learnt from by what the network itself is sure of."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxft.errors import JaxftError
from jaxft.losses.supervised import softmax_cross_entropy
from jaxft.typing import Batch, Outputs


def fixmatch(
    outputs: Outputs,
    batch: Batch,
    *,
    forward: Callable[[jax.Array], Outputs] | None,
    threshold: float = 0.95,
    weight: float = 1.0,
    temperature: float = 1.0,
    label_smoothing: float = 0.0,
    train: bool = True,
) -> jax.Array:
    """Cross-entropy [B] of the labelled pictures plus `weight` times FixMatch's term (Sohn et al., FixMatch, 2020, eq. 4):

    the mean over all unlabelled pictures of `1[max p >= threshold] * cross-entropy(strong look, argmax p)`, where p are the
    network's probabilities of the weak look, without a gradient. The mean is added to every row, so that the mean of a batch
    is the paper's sum.

    All three passes are in train mode (dropout; BatchNorm by the batch) as in the authors' code. There labelled, weak and
    strong pictures are one batch; here they are a pass each, so that the weak one has no backward pass: the same for networks
    without BatchNorm or with a frozen one. A BatchNorm that trains normalises each pass by itself, as Torch's USB does with
    `use_cat=False`, and its running statistics are those of the labelled pictures, which are what evaluations look like;
    strong looks do not move them. Dropout and stochastic depth draw the same for both looks of a picture.

    Args:
      outputs, batch: `logits` [B, K]; `label` [B] (classes) or [B, K] (probabilities); and in training `unlabelled_weak` and
        `unlabelled_strong` [U, H, W, C], two looks of the same U pictures.
      forward: another pass of the network; None gives the cross-entropy alone.
      threshold: of the probability above which an answer counts as a label, in [0, 1].
      weight: of the unlabelled pictures, at least 0; 1 in the paper.
      temperature: that p is softened by before it is compared; 1 in the paper.
      label_smoothing: of the labelled pictures.
      train: False, an evaluation, gives the cross-entropy alone.

    Raises:
      JaxftError: a setting out of its range, or training on a batch without unlabelled pictures.
    """
    if not 0 <= threshold <= 1:
        raise JaxftError(f"threshold is {threshold}: it is a probability, e.g. 0.95")
    if not weight >= 0:
        raise JaxftError(f"weight is {weight}: it must be at least 0, e.g. 1")
    if not temperature > 0:
        raise JaxftError(f"temperature is {temperature}: it must be positive, e.g. 1")
    supervised = softmax_cross_entropy(outputs, batch, label_smoothing=label_smoothing)
    if forward is None or not train:
        return supervised
    if missing := [key for key in ("unlabelled_weak", "unlabelled_strong") if key not in batch]:
        raise JaxftError(
            f"fixmatch learns from pictures without labels, and the batch has no {' and '.join(missing)}: set "
            "config.data.unlabelled (jaxft.data.unlabelled_batches makes them); evaluations take train=False"
        )
    answers = jax.nn.softmax(jax.lax.stop_gradient(forward(batch["unlabelled_weak"])["logits"]) / temperature)
    logits = forward(batch["unlabelled_strong"])["logits"]
    missed = optax.softmax_cross_entropy_with_integer_labels(logits, answers.argmax(-1))
    # where, not times: what is not sure may be infinite.
    return supervised + weight * jnp.where(answers.max(-1) >= threshold, missed, 0.0).mean()
