"""3x3 convolutions with fewer multiplications: Winograd's minimal filtering along the rows of a map.

Four neighbouring outputs of a row of three taps, F(4, 3), need 6 products instead of 12, and so do the three taps of a
kernel's gradient from four neighbouring gradients, F(3, 4). The other dimension stays what it is: the three kernel rows stand
side by side in a matrix product. That halves the arithmetic of the direct form for a transform that touches each pixel
1.5 times; the two-dimensional form saves four fold but writes 2.25 times the map, which on a CPU eats the gain.

Source: Winograd (1980), Arithmetic Complexity of Computations; Lavin & Gray (2016), arXiv:1509.09308. The matrices are derived
here, in fractions, by the Toom-Cook interpolation at 0, 1, -1, 2, -2 and infinity. Relative errors are a few 1e-6 in f32.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxft.ops.forms import sum_of_products
from jaxft.ops.geometry import Geometry, Pads

_POINTS = (0, 1, -1, 2, -2)  # and infinity
_TILE = 4  # neighbouring outputs (forward) or gradients (kernel gradient) that share their products


@functools.cache
def filtering(outputs: int, taps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matrices (D, G, A) with sum_j d[k + j] g[j] = (A ((G g) * (D d)))[k] for k < `outputs`, j < `taps`.

    D is [n, n], G [n, taps], A [outputs, n], where n = outputs + taps - 1 = 6 products; D and A hold whole numbers.
    """
    n = outputs + taps - 1
    assert n == len(_POINTS) + 1
    # The transpose of multiplying polynomials by their values: A and G evaluate, D interpolates.
    data = [[*column] for column in zip(*_inverse(_evaluation(n)), strict=True)]
    kernel = _evaluation(taps)
    for row, (values, weights) in enumerate(zip(data, kernel, strict=True)):
        scale = math.lcm(*(value.denominator for value in values))
        data[row] = [value * scale for value in values]
        kernel[row] = [weight / scale for weight in weights]
    out = [[*column] for column in zip(*_evaluation(outputs), strict=True)]
    found = [np.array([[float(value) for value in row] for row in matrix]) for matrix in (data, kernel, out)]
    return found[0], found[1], found[2]


def _evaluation(coefficients: int) -> list[list[Fraction]]:
    """Row t gives a polynomial's value at point t; the last, at infinity, is its leading coefficient."""
    rows = [[Fraction(point) ** power for power in range(coefficients)] for point in _POINTS]
    return [*rows, [Fraction(int(power == coefficients - 1)) for power in range(coefficients)]]


def _inverse(matrix: list[list[Fraction]]) -> list[list[Fraction]]:
    """Gauss and Jordan's elimination, exact."""
    n = len(matrix)
    rows = [[*row, *(Fraction(int(i == j)) for j in range(n))] for i, row in enumerate(matrix)]
    for i in range(n):
        pivot = next(k for k in range(i, n) if rows[k][i])
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [value / rows[i][i] for value in rows[i]]
        for k in range(n):
            if k != i:
                rows[k] = [a - rows[k][i] * b for a, b in zip(rows[k], rows[i], strict=True)]
    return [row[n:] for row in rows]


def _combine(matrix: np.ndarray, parts: Sequence[jax.Array]) -> list[jax.Array]:
    """Each row of `matrix` as a weighted sum of `parts`; zeros cost nothing."""
    found = []
    for row in matrix:
        terms = [
            part if weight == 1 else part * weight.astype(part.dtype) for weight, part in zip(row, parts, strict=True) if weight
        ]
        found.append(functools.reduce(jnp.add, terms))
    return found


def _strided(x: jax.Array, count: int, tiles: int) -> list[jax.Array]:
    """[B, H, W, C] -> `count` slices [B, H, tiles, C]: column p of each tile."""
    return [x[:, :, p : p + (tiles - 1) * _TILE + 1 : _TILE] for p in range(count)]


def _padded(x: jax.Array, pads: Pads, tiles: int) -> jax.Array:
    """Pads as told, and to the right up to whole tiles."""
    top_bottom, (left, right) = pads
    width = left + x.shape[2] + right
    return jnp.pad(x, ((0, 0), top_bottom, (left, right + tiles * _TILE + 2 - width), (0, 0)))


def conv3x3(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """[B, H, W, C] and [3, 3, C, O] -> [B, H', W', O], stride 1."""
    return _filtered(x, kernel, 0, geometry.pads)


def input_gradient(x: jax.Array, kernel: jax.Array, grad: jax.Array, geometry: Geometry) -> jax.Array:
    """The gradient for x, [B, H, W, C]: the same convolution of `grad` with the mirrored kernel.

    The products contract over the kernel's last axis: with 512 channels, transposing it takes longer than multiplying.
    """
    (top, bottom), (left, right) = geometry.pads
    return _filtered(grad, kernel[::-1, ::-1], 1, ((2 - top, 2 - bottom), (2 - left, 2 - right)))


def _filtered(x: jax.Array, kernel: jax.Array, axis: int, pads: Pads) -> jax.Array:
    """[B, H, W, C] -> [B, H', W', O], with a kernel [3, 3, C, O] where `axis` is 0, [3, 3, O, C] where it is 1.

    Each row is multiplied with each of the three kernel rows, and the products are added where they belong: that is one pass
    over a result, instead of copies of three rows side by side in front of the product.
    """
    (top, bottom), (left, right) = pads
    batch, height, width, channels = x.shape
    out_width = left + width + right - 2
    tiles = -(-out_width // _TILE)
    data, weights, out = filtering(_TILE, 3)
    seen = _combine(data, _strided(_padded(x, ((0, 0), (left, right)), tiles), _TILE + 2, tiles))  # 6 of [B, H, tiles, C]
    zero = jnp.zeros((), x.dtype)
    found: list[Any] = [0] * len(seen)
    for i in range(3):
        for number, own in enumerate(_combine(weights, [kernel[i, j] for j in range(3)])):
            row = lax.dot_general(seen[number].reshape(-1, channels), own, (((1,), (axis,)), ((), ())))
            row = row.reshape(batch, height, tiles, -1)
            shifted = lax.pad(row, zero, ((0, 0, 0), (top - i, bottom - 2 + i, 0), (0, 0, 0), (0, 0, 0)))
            found[number] = found[number] + shifted
    y = jnp.stack(_combine(out, found), axis=3)  # [B, H', tiles, 4, O]
    return y.reshape(*y.shape[:2], tiles * _TILE, -1)[:, :, :out_width]


def kernel_gradient(x: jax.Array, kernel: jax.Array, grad: jax.Array, geometry: Geometry) -> jax.Array:
    """The gradient for the kernel, [3, 3, C, O], block after block of the map: what is transformed stays in the cache."""
    batch, height, width, features = grad.shape
    channels = x.shape[3]
    tiles = -(-width // _TILE)
    data, weights, out = filtering(3, _TILE)
    images, rows = blocks(batch, height, width, channels * features)
    swapped = channels * features <= 128 * 128  # the gradient is the narrower; a large result is dear to turn back
    steps, bands = batch // images, height // rows
    seen = _padded(x, geometry.pads, tiles)
    given = jnp.pad(grad, ((0, 0), (0, 0), (0, tiles * _TILE - width), (0, 0)))
    # The images of a block lie far apart, so that a batch split over devices has some of each block on each of them.
    seen = seen.reshape(images, steps, *seen.shape[1:])
    given = given.reshape(images, steps, *given.shape[1:])

    def products(step: jax.Array | int) -> jax.Array:
        image, band = step // bands, step % bands
        own = lax.dynamic_slice(seen, (0, image, band * rows, 0, 0), (images, 1, rows + 2, *seen.shape[3:]))[:, 0]
        of = lax.dynamic_slice(given, (0, image, band * rows, 0, 0), (images, 1, rows, *given.shape[3:]))[:, 0]
        left = [_stack_rows(part, rows).reshape(-1, 3 * channels) for part in _combine(data, _strided(own, _TILE + 2, tiles))]
        right = [part.reshape(-1, features) for part in _combine(weights, _strided(of, _TILE, tiles))]
        pairs = jnp.stack(left), jnp.stack(right)
        return sum_of_products(*(pairs[::-1] if swapped else pairs))  # [6, 3 C, O], or [6, O, 3 C]

    if steps * bands == 1:
        total = products(0)
    else:
        shape = (features, 3 * channels) if swapped else (3 * channels, features)
        zeros = jnp.zeros((_TILE + 2, *shape), grad.dtype)
        total = lax.fori_loop(0, steps * bands, lambda step, total: total + products(step), zeros)
    if swapped:
        total = total.transpose(0, 2, 1)
    columns = [part.reshape(3, channels, features) for part in _combine(out, list(total))]
    return jnp.stack(columns, axis=1)


def _stack_rows(x: jax.Array, rows: int) -> jax.Array:
    """[B, rows + 2, T, C] -> [B, rows, T, 3 C]: each output row with the three input rows that it reads."""
    return jnp.concatenate([x[:, i : i + rows] for i in range(3)], axis=-1)


def blocks(batch: int, height: int, width: int, weights: int) -> tuple[int, int]:
    """(images, rows) of a block of the kernel gradient; they divide `batch` and `height`.

    About 2,048 pixels, whose transforms fit a core's cache; three times as many where a kernel matrix of `weights` numbers
    is so large that adding to it would cost more than what is saved.
    """
    wanted = 2048 if weights <= 128 * 128 else 6144
    if height * width > 1.6 * wanted:
        return 1, max(rows for rows in range(1, height + 1) if height % rows == 0 and (rows == 1 or rows * width <= wanted))
    images = max(k for k in range(1, batch + 1) if batch % k == 0 and (k == 1 or k * height * width <= 1.6 * wanted))
    if images * height * width * 4 < wanted:  # a batch with no divisor that serves: as one block
        images = batch
    return images, height
