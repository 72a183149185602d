"""Windows over a map [B, H, W, C]: padding, strides, and the slices that a window's positions read."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxft.errors import JaxftError

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]


class Geometry(NamedTuple):
    """What a convolution is besides its operands. Static: it is part of the compiled program."""

    strides: Pair = (1, 1)
    pads: Pads = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: int = 1


def pair(value: int | Pair) -> Pair:
    """(height, width) from one number or two."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def resolve_padding(padding: int | str | Pads, size: Any, window: Any, strides: Pair, dilation: Pair) -> Pads:
    """Explicit padding ((top, bottom), (left, right)); "SAME" as TensorFlow defines it: the odd one goes after."""
    if isinstance(padding, int):
        return ((padding, padding), (padding, padding))
    if not isinstance(padding, str):
        (top, bottom), (left, right) = padding
        return ((int(top), int(bottom)), (int(left), int(right)))
    if padding != "SAME":
        raise JaxftError(f"padding is '{padding}': it is 'SAME', a number, or ((top, bottom), (left, right))")
    found = []
    for extent, span, stride, spread in zip(size, window, strides, dilation, strict=True):
        total = max((-(-extent // stride) - 1) * stride + (span - 1) * spread + 1 - extent, 0)
        found.append((total // 2, total - total // 2))
    return (found[0], found[1])


def taps(x: jax.Array, window: Pair, strides: Pair, pads: Pads, fill: float = 0.0) -> list[jax.Array]:
    """The h * w strided slices [B, H', W', C] of the padded map that the window's positions read, row by row."""
    batch, height, width, channels = x.shape
    (top, bottom), (left, right) = pads
    padded = lax.pad(x, jnp.asarray(fill, x.dtype), ((0, 0, 0), (top, bottom, 0), (left, right, 0), (0, 0, 0)))
    rows = (height + top + bottom - window[0]) // strides[0] + 1
    columns = (width + left + right - window[1]) // strides[1] + 1
    found = []
    for i in range(window[0]):
        for j in range(window[1]):
            stop = (batch, i + (rows - 1) * strides[0] + 1, j + (columns - 1) * strides[1] + 1, channels)
            found.append(lax.slice(padded, (0, i, j, 0), stop, (1, *strides, 1)))
    return found


def untaps(slices: list[jax.Array], shape: tuple[int, ...], window: Pair, strides: Pair, pads: Pads) -> jax.Array:
    """The transpose of `taps`: adds each slice back at the positions it was read from."""
    (top, bottom), (left, right) = pads
    height, width = shape[1] + top + bottom, shape[2] + left + right
    _, rows, columns, _ = slices[0].shape
    zero = jnp.zeros((), slices[0].dtype)
    total: Any = 0
    for number, part in enumerate(slices):
        i, j = divmod(number, window[1])
        after = (height - i - (rows - 1) * strides[0] - 1, width - j - (columns - 1) * strides[1] - 1)
        total = total + lax.pad(
            part, zero, ((0, 0, 0), (i, after[0], strides[0] - 1), (j, after[1], strides[1] - 1), (0, 0, 0))
        )
    return total[:, top : top + shape[1], left : left + shape[2], :]
