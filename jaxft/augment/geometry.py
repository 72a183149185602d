"""Random changes of place: what draws their matrices, and the functions `(key, image, ...) -> image` made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxft.augment import warp as at
from jaxft.augment.warp import warp

#: Height and width.
Size = tuple[int, ...]


def chance(key: jax.Array, p: float) -> jax.Array:
    return jax.random.uniform(key) < p


def _between(key: jax.Array, low: float, high: float) -> jax.Array:
    return jax.random.uniform(key, (), minval=low, maxval=high)


def flip_matrix(key: jax.Array, size: Size, *, p: float = 0.5, vertical: bool = False) -> jax.Array:
    flips = chance(key, p)
    return at.flipped(False, flips) if vertical else at.flipped(flips)


def random_flip(key: jax.Array, image: jax.Array, *, p: float = 0.5, vertical: bool = False) -> jax.Array:
    """Mirrors left to right (top to bottom if `vertical`) with probability `p`. Keeps the dtype."""
    return jnp.where(chance(key, p), image[::-1] if vertical else image[:, ::-1], image)


def rotation_matrix(key: jax.Array, size: Size, *, degrees: float) -> jax.Array:
    return at.rotated(_between(key, -degrees, degrees))


def random_rotation(
    key: jax.Array, image: jax.Array, degrees: float, *, interpolation: str = "bilinear", fill: float = 0.0
) -> jax.Array:
    """Turns about the centre by an angle uniform in `-degrees` to `degrees`. The size stays: corners are lost."""
    return warp(image, rotation_matrix(key, image.shape[:2], degrees=degrees), interpolation=interpolation, fill=fill)


def scale_matrix(key: jax.Array, size: Size, *, low: float = 0.8, high: float = 1.25) -> jax.Array:
    return at.scaled(jnp.exp(_between(key, math.log(low), math.log(high))))


def random_scale(
    key: jax.Array,
    image: jax.Array,
    low: float = 0.8,
    high: float = 1.25,
    *,
    interpolation: str = "bilinear",
    fill: float = 0.0,
) -> jax.Array:
    """Enlarges (or shrinks) what is seen about the centre by a factor log-uniform in `low` to `high`."""
    return warp(image, scale_matrix(key, image.shape[:2], low=low, high=high), interpolation=interpolation, fill=fill)


def affine_matrix(
    key: jax.Array,
    size: Size,
    *,
    degrees: float = 0.0,
    translate: float = 0.0,
    scale: tuple[float, float] = (1.0, 1.0),
    shear: float = 0.0,
) -> jax.Array:
    turn, dx, dy, factor, slant_x, slant_y = jax.random.uniform(key, (6,), minval=-1.0)
    factor = scale[0] + (scale[1] - scale[0]) * (factor + 1) / 2
    x, y = jnp.tan(jnp.deg2rad(shear * slant_x)), jnp.tan(jnp.deg2rad(shear * slant_y))
    turned = at.sheared(x, y) @ at.scaled(factor) @ at.rotated(degrees * turn)
    return turned @ at.moved(translate * size[1] * dx, translate * size[0] * dy)


def random_affine(
    key: jax.Array,
    image: jax.Array,
    *,
    degrees: float = 0.0,
    translate: float = 0.0,
    scale: tuple[float, float] = (1.0, 1.0),
    shear: float = 0.0,
    interpolation: str = "bilinear",
    fill: float = 0.0,
) -> jax.Array:
    """Slants, enlarges, turns and moves the picture, each uniformly.

    Args:
      degrees: the angle lies in `-degrees` to `degrees`.
      translate: share of the side that it moves at most, along each.
      scale: range of the factor.
      shear: degrees that each axis slants at most.
    """
    matrix = affine_matrix(key, image.shape[:2], degrees=degrees, translate=translate, scale=scale, shear=shear)
    return warp(image, matrix, interpolation=interpolation, fill=fill)


def perspective_matrix(key: jax.Array, size: Size, *, distortion: float = 0.5, p: float = 0.5) -> jax.Array:
    first, second = jax.random.split(key)
    height, width = size
    x, y = (width - 1) / 2, (height - 1) / 2
    corners = jnp.array([[-x, -y], [x, -y], [x, y], [-x, y]])
    inward = jax.random.uniform(first, (4, 2)) * distortion * jnp.array([width / 2, height / 2])
    moved = corners - jnp.sign(corners) * inward
    return at.perspective(corners, jnp.where(chance(second, p), moved, corners))


def random_perspective(
    key: jax.Array,
    image: jax.Array,
    distortion: float = 0.5,
    *,
    p: float = 0.5,
    interpolation: str = "bilinear",
    fill: float = 0.0,
) -> jax.Array:
    """Moves each corner inward, with probability `p`, by up to `distortion` times half the side along each axis, uniformly."""
    matrix = perspective_matrix(key, image.shape[:2], distortion=distortion, p=p)
    return warp(image, matrix, interpolation=interpolation, fill=fill)


def crop_place(key: jax.Array, size: Size, *, side: int, padding: int = 0) -> jax.Array:
    """Upper left corner (y, x) of a random window of `side`, in a picture with `padding` around it: int32 [2]."""
    room = jnp.array(size) + 2 * padding - side + 1
    return jnp.floor(jax.random.uniform(key, (2,)) * room).astype(jnp.int32)


def random_crop(key: jax.Array, image: jax.Array, size: int, *, padding: int = 0, fill: float = 0.0) -> jax.Array:
    """Cuts `size` x `size` pixels out at a place uniform over all that fit, with `padding` pixels of `fill` around the picture.

    Keeps the dtype.
    """
    y, x = crop_place(key, image.shape[:2], side=size, padding=padding)
    value = jnp.asarray(fill, image.dtype)
    padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)), constant_values=value)
    return jax.lax.dynamic_slice(padded, (y, x, 0), (size, size, image.shape[2]))


def random_window(
    key: jax.Array, size: Size, scale: Sequence[float] = (0.08, 1.0), ratio: Sequence[float] = (3 / 4, 4 / 3)
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
    """A window drawn as torchvision draws it (Szegedy et al., 2015): ten tries, the first that fits.

    Args:
      size: height and width.
      scale: share of the area, uniform in this range.
      ratio: width over height, log-uniform in this range.

    Returns:
      (fits, left, top, width, height), whole pixels; where no try fits, `fits` is False.
    """
    rows, columns = size
    area, shape, x, y = jax.random.uniform(key, (4, 10))
    pixels = rows * columns * (scale[0] + (scale[1] - scale[0]) * area)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = jnp.exp(low + (high - low) * shape)
    width, height = jnp.round(jnp.sqrt(pixels * aspect)), jnp.round(jnp.sqrt(pixels / aspect))
    fits = (width > 0) & (width <= columns) & (height > 0) & (height <= rows)
    first = jnp.argmax(fits)
    width, height = width[first], height[first]
    left, top = jnp.floor(x[first] * (columns - width + 1)), jnp.floor(y[first] * (rows - height + 1))
    return fits.any(), left, top, width, height


def resized_crop_matrix(
    key: jax.Array,
    size: Size,
    *,
    side: int,
    scale: Sequence[float] = (0.08, 1.0),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
) -> jax.Array:
    fits, left, top, width, height = random_window(key, size, scale, ratio)
    rows, columns = size
    # Nothing fits: the largest window in the middle whose shape is allowed.
    wide, tall = min(columns, round(rows * ratio[1])), min(rows, round(columns / ratio[0]))
    left, top = jnp.where(fits, left, (columns - wide) // 2), jnp.where(fits, top, (rows - tall) // 2)
    width, height = jnp.where(fits, width, wide), jnp.where(fits, height, tall)
    return at.cropped(left, top, width, height, source=size, size=(side, side))


def random_resized_crop(
    key: jax.Array,
    image: jax.Array,
    size: int,
    scale: Sequence[float] = (0.08, 1.0),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
    *,
    interpolation: str = "bilinear",
) -> jax.Array:
    """Shows a random window at `size` x `size`; see `random_window`. Not antialiased: for windows no larger than that."""
    matrix = resized_crop_matrix(key, image.shape[:2], side=size, scale=scale, ratio=ratio)
    # Half a pixel beyond the window's edge, the edge itself is seen and not what lies outside the picture.
    edge = jnp.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    return warp(edge, matrix, size=(size, size), interpolation=interpolation)
