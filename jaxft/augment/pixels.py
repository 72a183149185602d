"""Random changes of what the pixels are: `(key, image, ...) -> image`, f32 [H, W, C] of 0 to 255.

`image` is uint8 or f32 in that range. `p` is the probability of a change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxft.augment import color
from jaxft.augment.geometry import chance, random_window


def _with(key: jax.Array, p: float, changed: jax.Array, image: jax.Array) -> jax.Array:
    return jnp.where(chance(key, p), changed, color.as_float(image))


def drawn_like(image: jax.Array, draw: Callable[..., jax.Array], key: jax.Array) -> jax.Array:
    """Random numbers of an image's shape. Drawn in a line: drawn in three dimensions they take ten times as long on a CPU."""
    return draw(key, (image.size,)).reshape(image.shape)


def random_color(
    key: jax.Array,
    image: jax.Array,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.4,
    hue: float = 0.1,
    *,
    p: float = 1.0,
) -> jax.Array:
    """Brightness, contrast, saturation and hue, one after the other.

    The first three are factors uniform in `max(0, 1 - b)` to `1 + b`, the hue a turn uniform in `-hue` to `hue` of the circle
    (at most 0.5): torchvision's ColorJitter, but for its random order. What is 0 costs nothing.
    """
    used, *keys = jax.random.split(key, 5)
    found = color.as_float(image)
    changes = (color.brightness, brightness), (color.contrast, contrast), (color.saturation, saturation)
    for (change, width), one in zip(changes, keys[:3], strict=True):
        if width:
            found = change(found, jax.random.uniform(one, (), minval=max(0.0, 1 - width), maxval=1 + width))
    if hue:
        found = color.hue(found, jax.random.uniform(keys[3], (), minval=-hue, maxval=hue))
    return _with(used, p, found, image)


def random_grey(key: jax.Array, image: jax.Array, p: float = 0.1) -> jax.Array:
    """Grey in all channels."""
    return _with(key, p, color.grey(image), image)


def random_blur(
    key: jax.Array, image: jax.Array, sigma: Sequence[float] = (0.1, 2.0), *, p: float = 0.5, radius: int = 0
) -> jax.Array:
    """A Gaussian blur with a `sigma` (pixels) uniform in that range; `radius` 0: of a kernel of four sigmas at most."""
    used, drawn = jax.random.split(key)
    width = jax.random.uniform(drawn, (), minval=sigma[0], maxval=sigma[1])
    return _with(used, p, color.blur(image, width, radius=radius or max(1, round(4 * sigma[1]))), image)


def random_noise(key: jax.Array, image: jax.Array, std: float = 10.0, *, p: float = 1.0) -> jax.Array:
    """Adds normal noise, independent in each pixel and channel, with a deviation uniform in 0 to `std` (of 255 values)."""
    used, drawn, noise = jax.random.split(key, 3)
    width = jax.random.uniform(drawn, (), maxval=std)
    changed = color.as_float(image) + width * drawn_like(image, jax.random.normal, noise)
    return _with(used, p, jnp.clip(changed, 0.0, 255.0), image)


def random_posterize(key: jax.Array, image: jax.Array, bits: int = 4, *, p: float = 0.5) -> jax.Array:
    """Keeps the upper `bits` of 8."""
    return _with(key, p, color.posterize(image, bits), image)


def random_solarize(key: jax.Array, image: jax.Array, threshold: float = 128.0, *, p: float = 0.5) -> jax.Array:
    """Inverts what is at least `threshold`."""
    return _with(key, p, color.solarize(image, threshold), image)


def random_equalize(key: jax.Array, image: jax.Array, p: float = 0.5) -> jax.Array:
    """Makes each channel's histogram flat."""
    return _with(key, p, color.equalize(image), image)


def random_autocontrast(key: jax.Array, image: jax.Array, p: float = 0.5) -> jax.Array:
    """Stretches each channel's range to 0..255."""
    return _with(key, p, color.autocontrast(image), image)


def random_invert(key: jax.Array, image: jax.Array, p: float = 0.5) -> jax.Array:
    """The negative."""
    return _with(key, p, color.invert(image), image)


def random_sharpness(key: jax.Array, image: jax.Array, factor: float = 2.0, *, p: float = 0.5) -> jax.Array:
    """Sharper by `factor`; see `jaxft.augment.color.sharpness`."""
    return _with(key, p, color.sharpness(image, factor), image)


def random_erasing(
    key: jax.Array,
    image: jax.Array,
    p: float = 0.25,
    *,
    scale: Sequence[float] = (0.02, 0.33),
    ratio: Sequence[float] = (0.3, 3.3),
    value: float | str = 0.0,
) -> jax.Array:
    """Random erasing (Zhong et al., 2017): a random window, see `random_window`, is overwritten.

    `value` is what is written, or "noise": a value uniform in 0..255 a pixel and channel.
    """
    used, drawn, noise = jax.random.split(key, 3)
    fits, left, top, width, height = random_window(drawn, image.shape[:2], scale, ratio)
    written = 255 * drawn_like(image, jax.random.uniform, noise) if value == "noise" else float(value)
    inside = in_window(image.shape[:2], left, top, width, height)
    return _with(used, p, jnp.where(inside & fits, written, color.as_float(image)), image)


def in_window(size: tuple[int, ...], left: jax.Array, top: jax.Array, width: jax.Array, height: jax.Array) -> jax.Array:
    """Which pixels lie in a window: bool [H, W, 1]."""
    y, x = jnp.arange(size[0])[:, None], jnp.arange(size[1])[None, :]
    inside = (y >= top) & (y < top + height) & (x >= left) & (x < left + width)
    return inside[..., None]
