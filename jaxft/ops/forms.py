"""Convolutions written as other operations: for each form its value and its two gradients.

All take `(x [B, H, W, C], kernel [h, w, C / groups, O], (grad [B, H', W', O],) geometry)`.
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxft.ops.geometry import Geometry, Pair, taps, untaps


def xla_conv(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """XLA's own convolution."""
    return lax.conv_general_dilated(
        x,
        kernel,
        geometry.strides,
        geometry.pads,
        rhs_dilation=geometry.dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=geometry.groups,
    )


def xla_input_gradient(x: jax.Array, kernel: jax.Array, grad: jax.Array, geometry: Geometry) -> jax.Array:
    return jax.vjp(lambda x: xla_conv(x, kernel, geometry), x)[1](grad)[0]


def xla_kernel_gradient(x: jax.Array, kernel: jax.Array, grad: jax.Array, geometry: Geometry) -> jax.Array:
    return jax.vjp(lambda kernel: xla_conv(x, kernel, geometry), kernel)[1](grad)[0]


def _matmul(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """[..., C] times [C, O]."""
    return lax.dot_general(x, matrix, (((x.ndim - 1,), (0,)), ((), ())))


def _over_pixels(x: jax.Array, grad: jax.Array) -> jax.Array:
    """[B, H, W, C] and [B, H, W, O] -> [C, O], summed over pixels."""
    x, grad = x.reshape(1, -1, x.shape[-1]), grad.reshape(1, -1, grad.shape[-1])
    return sum_of_products(x, grad)[0] if x.shape[2] <= grad.shape[2] else sum_of_products(grad, x)[0].T


def sum_of_products(a: jax.Array, b: jax.Array) -> jax.Array:
    """[G, K, M] and [G, K, N] -> [G, M, N], summed over K.

    XLA's CPU backend copies `a` to [G, M, K] first, which costs as much as the product: give the narrower one first. The
    barrier keeps it from exchanging the two again.
    """
    return lax.optimization_barrier(lax.dot_general(a, b, (((1,), (1,)), ((0,), (0,)))))


# 1x1: a matrix product over pixels.


def pointwise(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    return _matmul(_every(x, geometry.strides), kernel[0, 0])


def pointwise_input_gradient(x: jax.Array, kernel: jax.Array, grad: jax.Array, geometry: Geometry) -> jax.Array:
    small = _matmul(grad, kernel[0, 0].T)
    return small if geometry.strides == (1, 1) else untaps([small], x.shape, (1, 1), geometry.strides, geometry.pads)


def pointwise_kernel_gradient(x: jax.Array, kernel: jax.Array, grad: jax.Array, geometry: Geometry) -> jax.Array:
    return _over_pixels(_every(x, geometry.strides), grad)[None, None]


def _every(x: jax.Array, strides: Pair) -> jax.Array:
    return x[:, :: strides[0], :: strides[1]]


# Windows that cut the map into tiles without a rest: a matrix product over tiles.


def tiled(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    return _matmul(_cut(x, _window(kernel)), kernel.reshape(-1, kernel.shape[3]))


def _cut(x: jax.Array, window: Pair) -> jax.Array:
    """[B, H, W, C] -> [B, H / h, W / w, h * w * C]."""
    batch, rows, columns, channels = x.shape
    height, width = window
    tiles = x.reshape(batch, rows // height, height, columns // width, width, channels).swapaxes(2, 3)
    return tiles.reshape(*tiles.shape[:3], -1)


def tiled_input_gradient(x: jax.Array, kernel: jax.Array, grad: jax.Array, geometry: Geometry) -> jax.Array:
    height, width, channels, features = kernel.shape
    tiles = _matmul(grad, kernel.reshape(-1, features).T).reshape(*grad.shape[:3], height, width, channels)
    return tiles.swapaxes(2, 3).reshape(x.shape)


def tiled_kernel_gradient(x: jax.Array, kernel: jax.Array, grad: jax.Array, geometry: Geometry) -> jax.Array:
    return _over_pixels(_cut(x, _window(kernel)), grad).reshape(kernel.shape)


# A matrix product over patches.


def patched(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    return _matmul(_patches(x, kernel, geometry), kernel.reshape(-1, kernel.shape[3]))


def _patches(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """[B, H', W', h * w * C]."""
    return jnp.concatenate(taps(x, _window(kernel), geometry.strides, geometry.pads), axis=-1)


def _window(kernel: jax.Array) -> Pair:
    return kernel.shape[0], kernel.shape[1]


def patched_input_gradient(x: jax.Array, kernel: jax.Array, grad: jax.Array, geometry: Geometry) -> jax.Array:
    height, width, _, features = kernel.shape
    slices = jnp.split(_matmul(grad, kernel.reshape(-1, features).T), height * width, axis=-1)
    return untaps(slices, x.shape, (height, width), geometry.strides, geometry.pads)


def patched_kernel_gradient(x: jax.Array, kernel: jax.Array, grad: jax.Array, geometry: Geometry) -> jax.Array:
    return _over_pixels(_patches(x, kernel, geometry), grad).reshape(kernel.shape)


# Depthwise: a sum of shifted multiply-adds.


def depthwise(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    weights = kernel.reshape(-1, kernel.shape[3])
    total: Any = 0
    for number, part in enumerate(taps(x, _window(kernel), geometry.strides, geometry.pads)):
        total = total + part * weights[number]
    return total


def depthwise_input_gradient(x: jax.Array, kernel: jax.Array, grad: jax.Array, geometry: Geometry) -> jax.Array:
    """Pixels that the strides treat alike together: each such phase is a sum of shifted multiply-adds without strides.

    Adding each tap's product back where it was read, as `untaps` does, takes 3 to 14 times as long for a 5x5 kernel.
    """
    batch, height, width, channels = x.shape
    down, across = (
        _phases(span, stride, pads[0])
        for span, stride, pads in zip(_window(kernel), geometry.strides, geometry.pads, strict=True)
    )
    rows, columns = -(-height // len(down)), -(-width // len(across))
    (top, bottom), (left, right) = _reach(down, rows, grad.shape[1]), _reach(across, columns, grad.shape[2])
    padded = jnp.pad(grad, ((0, 0), (top, bottom), (left, right), (0, 0)))
    lines = []
    for phase in down:
        found = []
        for other in across:
            total = jnp.zeros((batch, rows, columns, channels), grad.dtype)
            for (i, below), (j, beside) in itertools.product(phase, other):
                first, start = top + below, left + beside
                total = total + padded[:, first : first + rows, start : start + columns] * kernel[i, j, 0]
            found.append(total)
        lines.append(jnp.stack(found, axis=3))
    whole = jnp.stack(lines, axis=2)  # [B, rows, strides, columns, strides, C]
    return whole.reshape(batch, rows * len(down), columns * len(across), channels)[:, :height, :width]


def _phases(span: int, stride: int, before: int) -> list[list[tuple[int, int]]]:
    """For each remainder of a pixel's place by `stride`: the taps that read such pixels, and where their results lie.

    Pixel q * stride + phase is read by tap k for result q + shift: the pairs (k, shift).
    """
    return [
        [(tap, (phase + before - tap) // stride) for tap in range(span) if (phase + before - tap) % stride == 0]
        for phase in range(stride)
    ]


def _reach(phases: list[list[tuple[int, int]]], wanted: int, size: int) -> Pair:
    """How far the shifts of `phases` reach beyond a gradient of `size` rows, before and after, for `wanted` rows of pixels."""
    shifts = [shift for phase in phases for _, shift in phase]
    return max(0, -min(shifts)), max(0, wanted + max(shifts) - size)


def depthwise_kernel_gradient(x: jax.Array, kernel: jax.Array, grad: jax.Array, geometry: Geometry) -> jax.Array:
    """Row by row of the output: whole-map products would be written to memory once a tap, and that is what costs."""
    height, width = _window(kernel)
    strides = geometry.strides
    padded = jnp.pad(x, ((0, 0), *geometry.pads, (0, 0)))
    batch, rows, columns, channels = grad.shape
    reach = (columns - 1) * strides[1] + 1

    def add_row(row: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        of_row = lax.dynamic_index_in_dim(grad, row, axis=1, keepdims=False)  # [B, W', C]
        found = []
        for i in range(height):
            line = lax.dynamic_index_in_dim(padded, row * strides[0] + i, axis=1, keepdims=False)  # [B, W + pads, C]
            for j in range(width):
                seen = lax.slice(line, (0, j, 0), (batch, j + reach, channels), (1, strides[1], 1))
                found.append(sums[i * width + j] + seen * of_row)
        return tuple(found)

    zeros = tuple(jnp.zeros((batch, columns, channels), grad.dtype) for _ in range(height * width))
    sums = lax.fori_loop(0, rows, add_row, zeros)
    return jnp.stack([part.sum((0, 1)) for part in sums]).reshape(height, width, 1, channels)


# Grouped: dense convolutions of groups put together.


def grouped(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """As few dense convolutions as keep at least 32 channels each; a kernel of several groups has zeros between them.

    The zeros are multiplied too: for groups of 4 channels eight times the arithmetic, and still many times faster than XLA's
    loop over groups on the CPU.
    """
    together = _together(geometry.groups, kernel.shape[2])
    count, inner = geometry.groups // together, kernel.shape[2]
    outer = kernel.shape[3] // geometry.groups
    by_group = kernel.reshape(*_window(kernel), inner, count, together, outer)
    dense = jnp.einsum("hwicto,ts->hwsicto", by_group, jnp.eye(together, dtype=kernel.dtype))
    dense = dense.reshape(*_window(kernel), together * inner, count, together * outer)
    own = geometry._replace(groups=1)
    parts = jnp.split(x, count, axis=-1)
    return jnp.concatenate([xla_conv(part, dense[:, :, :, number], own) for number, part in enumerate(parts)], axis=-1)


def _together(groups: int, inner: int) -> int:
    return next(k for k in range(1, groups + 1) if groups % k == 0 and (k * inner >= 32 or k == groups))


def grouped_input_gradient(x: jax.Array, kernel: jax.Array, grad: jax.Array, geometry: Geometry) -> jax.Array:
    return jax.vjp(lambda x: grouped(x, kernel, geometry), x)[1](grad)[0]


def grouped_kernel_gradient(x: jax.Array, kernel: jax.Array, grad: jax.Array, geometry: Geometry) -> jax.Array:
    return jax.vjp(lambda kernel: grouped(x, kernel, geometry), kernel)[1](grad)[0]
