"""Geometry: every change of place is a 3x3 matrix, and all of them together one look into the picture.

A matrix takes homogeneous coordinates (x, y, 1) of the result to those of the picture it is made from, x to the right and y
down, in pixels, measured from the centre of each. Done one after the other, A and then B are `A @ B`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxft.errors import JaxftError, near

INTERPOLATIONS = ("bilinear", "nearest")


def _matrix(rows: list[list[jax.Array | float]]) -> jax.Array:
    return jnp.stack([jnp.stack([jnp.asarray(value, jnp.float32) for value in row]) for row in rows])


def flipped(horizontal: jax.Array | bool, vertical: jax.Array | bool = False) -> jax.Array:
    """Mirrors left to right, top to bottom, where told so: [3, 3]."""
    x, y = jnp.where(horizontal, -1.0, 1.0), jnp.where(vertical, -1.0, 1.0)
    return _matrix([[x, 0, 0], [0, y, 0], [0, 0, 1]])


def rotated(degrees: jax.Array | float) -> jax.Array:
    """Turns the picture counter-clockwise about its centre, as Pillow and torchvision do: [3, 3]."""
    angle = jnp.deg2rad(jnp.asarray(degrees, jnp.float32))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return _matrix([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def scaled(factor: jax.Array | float) -> jax.Array:
    """Enlarges what is seen `factor` times about the centre: [3, 3]."""
    return _matrix([[1 / factor, 0, 0], [0, 1 / factor, 0], [0, 0, 1]])


def moved(dx: jax.Array | float, dy: jax.Array | float) -> jax.Array:
    """Moves what is seen by pixels to the right and down: [3, 3]."""
    return _matrix([[1, 0, -jnp.asarray(dx)], [0, 1, -jnp.asarray(dy)], [0, 0, 1]])


def sheared(x: jax.Array | float, y: jax.Array | float, *, corner: tuple[int, ...] | None = None) -> jax.Array:
    """Slants the picture: a row moves left by `x` pixels for each that it lies lower, a column up by `y`: [3, 3].

    `corner` = (height, width): the upper left corner stays in place, as in AutoAugment; None: the centre.
    """
    height, width = corner or (0, 0)
    return _matrix([[1 + x * y, x, x * y * width / 2.0 + x * height / 2.0], [y, 1, y * width / 2.0], [0, 0, 1]])


def cropped(
    left: jax.Array, top: jax.Array, width: jax.Array, height: jax.Array, *, source: tuple[int, ...], size: tuple[int, int]
) -> jax.Array:
    """Shows a window of the picture alone: [3, 3].

    Args:
      left, top, width, height: of the window, in pixels from the picture's upper left corner.
      source: height and width of the picture.
      size: height and width of the result.
    """
    x = left + width / 2.0 - source[1] / 2.0
    y = top + height / 2.0 - source[0] / 2.0
    return _matrix([[width / size[1], 0, x], [0, height / size[0], y], [0, 0, 1]])


def perspective(corners: jax.Array, moved_to: jax.Array) -> jax.Array:
    """Shows at `moved_to` what was at `corners`: [3, 3].

    Args:
      corners: (x, y) of four corners in turn, from the picture's centre: [4, 2].
      moved_to: where they stand in the result: [4, 2].
    """
    rows = _of_square(moved_to)
    # The inverse but for a factor, which a matrix of homogeneous coordinates may have: by cross products of the rows.
    back = jnp.stack([jnp.cross(rows[1], rows[2]), jnp.cross(rows[2], rows[0]), jnp.cross(rows[0], rows[1])], axis=1)
    return _of_square(corners) @ back


def _of_square(corners: jax.Array) -> jax.Array:
    """The map of the unit square's corners to four others (Heckbert, Fundamentals of Texture Mapping, 1989): [3, 3]."""
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = corners
    dx1, dx2, dx3 = x1 - x2, x3 - x2, x0 - x1 + x2 - x3
    dy1, dy2, dy3 = y1 - y2, y3 - y2, y0 - y1 + y2 - y3
    whole = dx1 * dy2 - dx2 * dy1
    g, h = (dx3 * dy2 - dx2 * dy3) / whole, (dx1 * dy3 - dx3 * dy1) / whole
    return _matrix([[x1 - x0 + g * x1, x3 - x0 + h * x3, x0], [y1 - y0 + g * y1, y3 - y0 + h * y3, y0], [g, h, 1]])


def warp(
    image: jax.Array,
    matrix: jax.Array,
    *,
    size: tuple[int, int] | None = None,
    interpolation: str = "bilinear",
    fill: float = 0.0,
) -> jax.Array:
    """Looks into a picture through a matrix.

    Args:
      image: [H, W, C], uint8 or float.
      matrix: [3, 3]; see the module.
      size: height and width of the result; None: those of the picture.
      interpolation: "bilinear" (not antialiased, as in torchvision's `affine`) or "nearest".
      fill: what lies outside the picture.

    Raises:
      JaxftError: another interpolation.

    Returns:
      f32 [h, w, C]. Differentiable by a float image and, where bilinear, by the matrix.
    """
    if interpolation not in INTERPOLATIONS:
        raise JaxftError(
            f"no interpolation is called '{interpolation}'{near(interpolation, INTERPOLATIONS)}; there are "
            f"{' and '.join(INTERPOLATIONS)}"
        )
    height, width, channels = image.shape
    rows, columns = size or (height, width)
    y, x = jnp.mgrid[:rows, :columns].astype(jnp.float32)
    x, y = x - (columns - 1) / 2, y - (rows - 1) / 2
    across, down, depth = (matrix[row, 0] * x + matrix[row, 1] * y + matrix[row, 2] for row in range(3))
    across, down = across / depth + (width - 1) / 2, down / depth + (height - 1) / 2
    # A border of `fill`, one pixel wide: what looks further out than that sees the border.
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)), constant_values=jnp.asarray(fill, image.dtype)).reshape(-1, channels)
    stride = width + 2
    # NaN (a point at infinity) goes to the border too: fmin and fmax pass over it.
    across = jnp.fmin(jnp.fmax(across, -1.0), float(width)) + 1
    down = jnp.fmin(jnp.fmax(down, -1.0), float(height)) + 1
    if interpolation == "nearest":
        place = jnp.round(down).astype(jnp.int32) * stride + jnp.round(across).astype(jnp.int32)
        return jnp.take(padded, place, axis=0, mode="clip").astype(jnp.float32)
    left, top = jnp.minimum(jnp.floor(across), float(width)), jnp.minimum(jnp.floor(down), float(height))
    right, low = (across - left)[..., None], (down - top)[..., None]
    place = top.astype(jnp.int32) * stride + left.astype(jnp.int32)

    def at(offset: int) -> jax.Array:
        return jnp.take(padded, place + offset, axis=0, mode="clip").astype(jnp.float32)

    upper = at(0) * (1 - right) + at(1) * right
    lower = at(stride) * (1 - right) + at(stride + 1) * right
    return upper * (1 - low) + lower * low
