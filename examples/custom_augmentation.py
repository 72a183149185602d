"""An augmentation of your own: a pure function (key, image, ...) -> image of one picture, traced into the training step.

jaxft train --config=configs/finetune_folder.py:path=PHOTOS --workdir=runs/scanlines \
    --config.input.augment="crop_flip, examples.custom_augmentation:random_scanlines(0.4, p=0.5)"
"""

import jax
import jax.numpy as jnp


def random_scanlines(key: jax.Array, image: jax.Array, strength: float = 0.5, *, p: float = 0.5) -> jax.Array:
    """Darkens every other row by a random share of up to `strength`, as an old screen does.

    Args:
      key: of this example in this epoch: the same in every run, on any number of devices, after any restart.
      image: uint8 or f32 [H, W, C], values of 0 to 255.
      strength: in 0..1.
      p: how likely the change is.
    """
    used, drawn, place = jax.random.split(key, 3)
    share = jax.random.uniform(drawn, (), maxval=strength)
    dark = (jnp.arange(image.shape[0]) + jax.random.bernoulli(place)) % 2 == 0
    changed = image * jnp.where(dark, 1 - share, 1.0)[:, None, None]
    return jnp.where(jax.random.bernoulli(used, p), changed, image)
