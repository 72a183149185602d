"""Sharpness-aware minimisation: where the second gradient is taken."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxft import tree
from jaxft.typing import Params

#: Added to the size of each weight in ASAM, so that a weight near zero moves too (Kwon et al., 2021).
ETA = 0.01


def perturbed(params: Params, grads: Any, rho: float, *, adaptive: bool = False) -> Params:
    """The weights as far up the loss as they can be moved within a ball of radius `rho`, to first order.

    `w + rho * g / ||g||` (Foret et al., Sharpness-Aware Minimization for Efficiently Improving Generalization, 2021). Adaptive,
    the ball is measured in the size of each weight (Kwon et al., ASAM, 2021): `w + rho * T^2 g / ||T g||` with
    `T = |w| + 0.01`, and, as in the authors' code, T = 1 for biases.

    Args:
      params: the trained leaves.
      grads: of the same tree; their scale does not matter.
      rho: 0.05 is usual, adaptive 0.5 to 2.
      adaptive: ASAM.
    """
    if not adaptive:
        return jax.tree.map(jnp.add, params, _of_length(grads, grads, rho))
    scale = tree.map_with_path(
        lambda path, leaf: jnp.ones_like(leaf) if path.rpartition("/")[2] == "bias" else jnp.abs(leaf) + ETA, params
    )
    scaled = jax.tree.map(jnp.multiply, scale, grads)
    steps = _of_length(jax.tree.map(jnp.multiply, scale, scaled), scaled, rho)
    return jax.tree.map(jnp.add, params, steps)


def _of_length(direction: Any, measured: Any, rho: float) -> Any:
    """`direction` times what makes `measured` as long as `rho`; nothing where that is zero."""
    length = optax.tree.norm(measured)
    factor = jnp.where(length > 0, rho / jnp.maximum(length, jnp.finfo(length.dtype).tiny), 0)
    return jax.tree.map(lambda leaf: leaf * factor.astype(leaf.dtype), direction)
