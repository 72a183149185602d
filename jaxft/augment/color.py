"""Colours and sharpness at fixed parameters, as torchvision defines them on float images.

All take f32 [H, W, C] (or uint8) with values of 0 to 255 and give f32 in that range, not rounded. Those that look at the
relation of colours leave pictures of one channel alone and refuse others than one and three.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxft.errors import JaxftError


def as_float(image: jax.Array) -> jax.Array:
    return jnp.asarray(image, jnp.float32)


def blend(image: jax.Array, other: jax.Array | float, factor: jax.Array | float) -> jax.Array:
    """`factor * image + (1 - factor) * other`, cut off at 0 and 255."""
    image = as_float(image)
    return jnp.clip(factor * image + (1 - factor) * other, 0.0, 255.0)


def luminance(image: jax.Array) -> jax.Array:
    """Grey values [H, W, 1] by ITU-R 601, with torchvision's digits: 0.2989, 0.587, 0.114."""
    image = as_float(image)
    if image.shape[-1] == 1:
        return image
    if image.shape[-1] != 3:
        raise JaxftError(f"an augmentation of colours takes images of 1 or 3 channels, not {image.shape[-1]}")
    # Three multiplications: a contraction over three channels would be a matrix product.
    red, green, blue = (image[..., channel] for channel in range(3))
    return (0.2989 * red + 0.587 * green + 0.114 * blue)[..., None]


def brightness(image: jax.Array, factor: jax.Array | float) -> jax.Array:
    """0 is black, 1 the image, 2 twice as bright."""
    return blend(image, 0.0, factor)


def contrast(image: jax.Array, factor: jax.Array | float) -> jax.Array:
    """0 is the mean grey, 1 the image."""
    return blend(image, luminance(image).mean(), factor)


def saturation(image: jax.Array, factor: jax.Array | float) -> jax.Array:
    """0 is grey, 1 the image."""
    return blend(image, luminance(image), factor)


def grey(image: jax.Array) -> jax.Array:
    """Grey in as many channels as there were."""
    return jnp.broadcast_to(luminance(image), image.shape)


def hue(image: jax.Array, turn: jax.Array | float) -> jax.Array:
    """Turns the hues of HSV by a share of the circle, -0.5 to 0.5."""
    image = as_float(image)
    if image.shape[-1] == 1:
        return image
    luminance(image)  # refuses other numbers of channels
    red, green, blue = (image[..., channel] for channel in range(3))
    largest, least = jnp.maximum(jnp.maximum(red, green), blue), jnp.minimum(jnp.minimum(red, green), blue)
    spread = largest - least
    by = 1 / jnp.where(spread > 0, spread, 1.0)
    # Not `largest == red`: a compiler may compute both anew, and round them differently.
    sixth = jnp.where(
        (red >= green) & (red >= blue),
        (green - blue) * by,
        jnp.where(green >= blue, 2 + (blue - red) * by, 4 + (red - green) * by),
    )
    # The channel n of HSV to RGB is v - v s max(0, min(k, 4 - k, 1)), k = (n + h / 60 degrees) mod 6, n = 5, 3, 1.
    k = (sixth + 6 * turn)[..., None] + jnp.array([5.0, 3.0, 1.0])
    k = k - 6 * jnp.floor(k / 6)  # jnp.mod is ten times as slow on a CPU
    found = largest[..., None] - spread[..., None] * jnp.clip(jnp.minimum(k, 4 - k), 0.0, 1.0)
    return jnp.clip(found, 0.0, 255.0)


def invert(image: jax.Array) -> jax.Array:
    return 255.0 - as_float(image)


def posterize(image: jax.Array, bits: jax.Array | int) -> jax.Array:
    """Keeps the upper `bits` of 8; values are rounded first."""
    step = jnp.exp2(8.0 - bits)
    return jnp.floor(jnp.round(as_float(image)) / step) * step


def solarize(image: jax.Array, threshold: jax.Array | float) -> jax.Array:
    """Inverts what is at least `threshold`."""
    image = as_float(image)
    return jnp.where(image >= threshold, 255.0 - image, image)


def autocontrast(image: jax.Array) -> jax.Array:
    """Each channel's range is stretched to 0..255; a channel of one value stays."""
    image = as_float(image)
    least, largest = image.min((0, 1)), image.max((0, 1))
    spread = largest - least
    stretched = (image - least) * (255.0 / jnp.where(spread > 0, spread, 1.0))
    return jnp.where(spread > 0, jnp.clip(stretched, 0.0, 255.0), image)


def histogram(image: jax.Array) -> jax.Array:
    """How often each of 256 rounded values occurs in each channel: f32 [C, 256], exact below 2^24 pixels."""
    values = jnp.clip(jnp.round(as_float(image)), 0, 255).astype(jnp.int32).reshape(-1, image.shape[-1])
    return jax.lax.platform_dependent(values, tpu=_histogram_by_digits, default=_histogram_by_count)


def _histogram_by_count(values: jax.Array) -> jax.Array:
    channels = values.shape[-1]
    place = values + 256 * jnp.arange(channels)
    return jnp.zeros(256 * channels).at[place.reshape(-1)].add(1.0, mode="promise_in_bounds").reshape(channels, 256)


def _histogram_by_digits(values: jax.Array) -> jax.Array:
    """A value is two digits of 16, and the table of both a product of matrices of ones and zeros: a TPU adds to single places
    one after the other, and multiplies matrices fast."""
    digits = jnp.arange(16, dtype=jnp.int32)
    high, low = ((values[..., None] // 16 == digits), (values[..., None] % 16 == digits))
    table = jnp.einsum("nch,ncl->chl", high.astype(jnp.bfloat16), low.astype(jnp.bfloat16), preferred_element_type=jnp.float32)
    return table.reshape(-1, 256)


def equalized(counts: jax.Array) -> jax.Array:
    """The table [C, 256] of new values that makes each channel's histogram flat, as Pillow and torchvision make it.

    Args:
      counts: [C, 256], of `histogram`.
    """
    counts = counts.astype(jnp.int32)
    last = 255 - jnp.argmax(counts[:, ::-1] > 0, axis=-1, keepdims=True)  # the largest value that occurs
    step = (counts.sum(-1, keepdims=True) - jnp.take_along_axis(counts, last, axis=-1)) // 255
    before = jnp.cumsum(counts, axis=-1) - counts
    table = jnp.clip((before + step // 2) // jnp.maximum(step, 1), 0, 255)
    return jnp.where(step > 0, table, jnp.arange(256)).astype(jnp.float32)


def looked_up(image: jax.Array, table: jax.Array) -> jax.Array:
    """The values of `table` [C, 256] for an image's rounded values."""
    channels = image.shape[-1]
    values = jnp.clip(jnp.round(as_float(image)), 0, 255).astype(jnp.int32)
    return jnp.take(table.reshape(-1), values + 256 * jnp.arange(channels), mode="clip")


def equalize(image: jax.Array) -> jax.Array:
    """Makes each channel's histogram flat; values are rounded first, and those of the result are whole."""
    return looked_up(image, equalized(histogram(image)))


def smooth(image: jax.Array) -> jax.Array:
    """The mean of 3x3 pixels, the middle one five times; the border stays."""
    image = as_float(image)
    if min(image.shape[:2]) < 3:
        return image
    height, width = image.shape[0] - 2, image.shape[1] - 2
    parts = [image[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    middle = (sum(parts) + 4 * parts[4]) / 13
    return image.at[1:-1, 1:-1].set(middle)


def sharpness(image: jax.Array, factor: jax.Array | float) -> jax.Array:
    """0 is `smooth`, 1 the image, 2 sharper."""
    return blend(image, smooth(image), factor)


def blur(image: jax.Array, sigma: jax.Array | float, *, radius: int) -> jax.Array:
    """A Gaussian blur, the picture mirrored at its border (the border's pixels not twice).

    Rows and columns are multiplied by a band matrix each: a matrix unit needs no loop over the kernel.

    Args:
      image: [H, W, C].
      sigma: in pixels.
      radius: of the kernel, in pixels; it has `2 * radius + 1` weights. At most the picture's side less one.
    """
    height, width, channels = image.shape
    down, across = _band(height, sigma, radius), _band(width, sigma, radius)
    image = as_float(image)
    highest = jax.lax.Precision.HIGHEST  # a TPU's plain product keeps eight bits, as many as a pixel has
    found = jnp.matmul(down, image.reshape(height, -1), precision=highest).reshape(height, width, channels)
    return jnp.einsum("xw,hwc->hxc", across, found, precision=highest)


def _band(side: int, sigma: jax.Array | float, radius: int) -> jax.Array:
    """The blur of a line as a matrix [side, side]."""
    radius = min(radius, side - 1)
    sigma = jnp.maximum(jnp.asarray(sigma, jnp.float32), 1e-3)
    offsets = np.arange(-radius, radius + 1)
    weights = jnp.exp(-0.5 * (offsets / sigma) ** 2)
    weights = weights / weights.sum()
    place = np.arange(side)
    # Where the mirrored line has the pixel i once more: at -i and at 2 (side - 1) - i.
    again = (place[None, :], -place[None, :], 2 * (side - 1) - place[None, :])
    found = jnp.zeros((side, side))
    for number, mirrored in enumerate(again):
        offset = mirrored - place[:, None]
        once = np.ones((side, side), bool) if number == 0 else (mirrored != place[None, :])
        inside = (np.abs(offset) <= radius) & once
        found = found + jnp.where(inside, weights[np.clip(offset, -radius, radius) + radius], 0.0)
    return found
