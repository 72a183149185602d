"""A loss that is NaN for one example, as a picture that was labelled wrong may make it: a user's own."""

import jax.numpy as jnp

from jaxft.losses import softmax_cross_entropy

EXAMPLE = 5


def loss(outputs, batch):
    return softmax_cross_entropy(outputs, batch) * jnp.where(batch["index"] == EXAMPLE, jnp.nan, 1.0)
