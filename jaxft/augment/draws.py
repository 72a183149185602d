"""Draws from distributions that have no formula for their quantiles: out of a table of them.

The usual samplers of Beta and Gamma try until a draw is accepted. For examples on many devices that is a loop that all of them
must leave together, with a message at every turn; and it takes seconds to compile.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

#: Quantiles that are kept; between them the line.
COUNT = 4096


@functools.lru_cache(maxsize=64)
def _quantiles(distribution: str, alpha: float) -> np.ndarray:
    """f32 [COUNT], at (i + 0.5) / COUNT."""
    at = (np.arange(COUNT) + 0.5) / COUNT
    found = special.betaincinv(alpha, alpha, at) if distribution == "beta" else special.gammaincinv(alpha, at)
    return found.astype(np.float32)


def _draw(key: jax.Array, table: np.ndarray, shape: tuple[int, ...]) -> jax.Array:
    place = jax.random.uniform(key, shape) * (COUNT - 1)
    low = jnp.floor(place).astype(jnp.int32)
    quantiles = jnp.asarray(table)
    below, above = quantiles[low], quantiles[jnp.minimum(low + 1, COUNT - 1)]
    return below + (place - low) * (above - below)


def beta(key: jax.Array, alpha: float, shape: tuple[int, ...] = ()) -> jax.Array:
    """Beta(alpha, alpha)."""
    return _draw(key, _quantiles("beta", float(alpha)), shape)


def dirichlet(key: jax.Array, alpha: float, count: int) -> jax.Array:
    """Dirichlet with `count` parameters of alpha: f32 [count], of sum 1."""
    gammas = _draw(key, _quantiles("gamma", float(alpha)), (count,)) + 1e-30
    return gammas / gammas.sum()
