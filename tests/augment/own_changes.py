"""Changes of pixels as a user writes them, found by name."""

import jax
import jax.numpy as jnp


def shift(key, image, most: float = 10.0, *, p: float = 1.0):
    """Adds a number to all pixels."""
    used, drawn = jax.random.split(key)
    return jnp.where(jax.random.bernoulli(used, p), image + jax.random.uniform(drawn, (), maxval=most), image)


def halve(key, image):
    return image[::2]


number = 3
