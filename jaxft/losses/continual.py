"""Losses that keep what was learnt before: an anchor where training began, and how much each parameter matters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxft import tree
from jaxft.errors import JaxftError
from jaxft.losses.supervised import softmax_cross_entropy
from jaxft.typing import Batch, Outputs, Params


def ewc(
    outputs: Outputs,
    batch: Batch,
    *,
    params: Params,
    anchor: Mapping[str, Any] | None,
    strength: float = 1000.0,
    label_smoothing: float = 0.0,
) -> jax.Array:
    """Cross-entropy plus `strength / 2 * sum of importance * (w - w*)^2`, EWC (Kirkpatrick et al., 2017).

    The second term is the same for every example of a batch, so that the mean over it has it once.

    Args:
      outputs, batch: see `jaxft.losses.softmax_cross_entropy`.
      params: the full parameters.
      anchor: where training began, and the importances, of `jaxft.continual.fisher_diagonal` say; None, as in an evaluation,
        gives the cross-entropy alone.
      strength: lambda, at least 0.
      label_smoothing: of the cross-entropy.

    Raises:
      JaxftError: a negative strength, or an anchor without importances.
    """
    if not strength >= 0:
        raise JaxftError(f"strength is {strength}: it must be at least 0")
    plain = softmax_cross_entropy(outputs, batch, label_smoothing=label_smoothing)
    if anchor is None:
        return plain
    if not anchor["importance"]:
        raise JaxftError("ewc needs to know what matters: set config.anchor.importance to the file of a Fisher diagonal")
    now, importance = tree.flatten(params), tree.flatten(anchor["importance"])
    pulls = [(importance[path] * (now[path] - start) ** 2).sum() for path, start in tree.flatten(anchor["params"]).items()]
    return plain + strength / 2 * jnp.stack(pulls).sum()
