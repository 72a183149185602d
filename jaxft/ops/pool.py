"""Pooling, NHWC, with torch's meaning."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxft.errors import JaxftError
from jaxft.ops.geometry import Pads, Pair, pair, resolve_padding, taps, untaps
from jaxft.ops.lowering import by_platform, forced


def max_pool(
    x: jax.Array,
    window: int | Pair,
    strides: int | Pair | None = None,
    padding: int | Pads = 0,
    ceil_mode: bool = False,
    lowering: str | None = None,
) -> jax.Array:
    """Maximum over windows; padding counts as minus infinity. Of equal maxima the first gets the gradient.

    Args:
      x: [B, H, W, C].
      window, strides: one number or (height, width); strides default to the window.
      padding: one number or ((top, bottom), (left, right)).
      ceil_mode: as torch: round the output size up, but no window may start in the padding after the image.
      lowering: None takes what `JAXFT_OPS` says; "auto", "xla" or "cpu": see `jaxft.ops.lowering`.
    """
    window = pair(window)
    strides = window if strides is None else pair(strides)
    pads = _pads(x, window, strides, padding, ceil_mode)
    choice = forced(lowering)
    if choice == "xla":
        return _xla_max_pool(x, window, strides, pads)
    return _max_pool(x, window, strides, pads, choice)


def avg_pool(
    x: jax.Array,
    window: int | Pair,
    strides: int | Pair | None = None,
    padding: int | Pads = 0,
    count_include_pad: bool = True,
    ceil_mode: bool = False,
    lowering: str | None = None,
) -> jax.Array:
    """Average over windows. With `count_include_pad` zeros of `padding` count, as in torch; what `ceil_mode` adds does not."""
    window = pair(window)
    strides = window if strides is None else pair(strides)
    asked = resolve_padding(padding, x.shape[1:3], window, strides, (1, 1))
    pads = _pads(x, window, strides, padding, ceil_mode)
    choice = forced(lowering)
    sum_pool = _xla_sum_pool if choice == "xla" else functools.partial(_sum_pool, choice=choice)
    summed = sum_pool(x, window, strides, pads)
    counted = np.ones(x.shape[1:3])
    if count_include_pad:
        counted = np.pad(counted, asked, constant_values=1)
        rest = tuple((0, after - own) for (_, after), (_, own) in zip(pads, asked, strict=True))
    else:
        rest = pads
    counted = np.pad(counted, rest)
    views = np.lib.stride_tricks.sliding_window_view(counted, window)[:: strides[0], :: strides[1]]
    return summed / jnp.asarray(views.sum((-1, -2))[None, :, :, None], x.dtype)


def adaptive_avg_pool(x: jax.Array, size: Pair) -> jax.Array:
    """Average over `size` windows that cover [B, H, W, C] as evenly as integers allow: torch's AdaptiveAvgPool2d.

    Window i of n over an extent of m reads from floor(i * m / n) to ceil((i + 1) * m / n).
    """
    if x.shape[1:3] == tuple(size):
        return x
    rows, columns = (_window_means(extent, count) for extent, count in zip(x.shape[1:3], size, strict=True))
    return jnp.einsum("bhwc,ih,jw->bijc", x, jnp.asarray(rows, x.dtype), jnp.asarray(columns, x.dtype))


def _window_means(extent: int, count: int) -> np.ndarray:
    """[count, extent]: row i averages the i-th window."""
    means = np.zeros((count, extent))
    for index in range(count):
        start, stop = index * extent // count, -(-(index + 1) * extent // count)
        means[index, start:stop] = 1 / (stop - start)
    return means


def global_avg_pool(x: jax.Array) -> jax.Array:
    """[B, C] of x's dtype from [B, H, W, C], summed in f32."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32)).mean((1, 2)).astype(x.dtype)


def _pads(x: jax.Array, window: Pair, strides: Pair, padding: int | Pads, ceil_mode: bool) -> Pads:
    pads = resolve_padding(padding, x.shape[1:3], window, strides, (1, 1))
    found = []
    for extent, span, stride, (before, after) in zip(x.shape[1:3], window, strides, pads, strict=True):
        if before >= span or after >= span:
            raise JaxftError(f"padding {pads} is not smaller than the window {window}")
        room = extent + before + after - span
        if room < 0:
            raise JaxftError(f"the window {window} is larger than the padded map {x.shape[1:3]}")
        steps = -(-room // stride) if ceil_mode else room // stride
        if ceil_mode and steps * stride >= extent + before:
            steps -= 1
        found.append((before, after + max(steps * stride - room, 0)))
    return (found[0], found[1])


def _xla_max_pool(x: jax.Array, window: Pair, strides: Pair, pads: Pads) -> jax.Array:
    lowest = np.array(-np.inf, x.dtype)
    return lax.reduce_window(x, lowest, lax.max, (1, *window, 1), (1, *strides, 1), ((0, 0), *pads, (0, 0)))


def _xla_sum_pool(x: jax.Array, window: Pair, strides: Pair, pads: Pads) -> jax.Array:
    return lax.reduce_window(x, np.zeros((), x.dtype), lax.add, (1, *window, 1), (1, *strides, 1), ((0, 0), *pads, (0, 0)))


# On the CPU XLA's select_and_scatter, the gradient of its pooling, is 5 to 13 times slower than comparing the slices that the
# windows read; the forward pass gains as well.


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _max_pool(x: jax.Array, window: Pair, strides: Pair, pads: Pads, choice: str) -> jax.Array:
    return by_platform(
        x,
        choice=choice,
        cpu=lambda x: functools.reduce(jnp.maximum, taps(x, window, strides, pads, fill=-np.inf)),
        xla=lambda x: _xla_max_pool(x, window, strides, pads),
    )


def _max_pool_bwd(window: Pair, strides: Pair, pads: Pads, choice: str, x: jax.Array, grad: jax.Array) -> tuple[jax.Array]:
    def cpu(x: jax.Array, grad: jax.Array) -> jax.Array:
        slices = taps(x, window, strides, pads, fill=-np.inf)
        highest = functools.reduce(jnp.maximum, slices)
        taken: Any = jnp.zeros(grad.shape, bool)
        parts = []
        for part in slices:
            first = (part == highest) & ~taken
            parts.append(jnp.where(first, grad, 0))
            taken = taken | first
        return untaps(parts, x.shape, window, strides, pads)

    def xla(x: jax.Array, grad: jax.Array) -> jax.Array:
        return jax.vjp(lambda x: _xla_max_pool(x, window, strides, pads), x)[1](grad)[0]

    return (by_platform(x, grad, choice=choice, cpu=cpu, xla=xla),)


_max_pool.defvjp(lambda x, *static: (_max_pool(x, *static), x), _max_pool_bwd)


# Sums over windows: added slices, and their transpose.


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _sum_pool(x: jax.Array, window: Pair, strides: Pair, pads: Pads, choice: str) -> jax.Array:
    return by_platform(
        x,
        choice=choice,
        cpu=lambda x: functools.reduce(jnp.add, taps(x, window, strides, pads)),
        xla=lambda x: _xla_sum_pool(x, window, strides, pads),
    )


def _sum_pool_bwd(window: Pair, strides: Pair, pads: Pads, choice: str, x: jax.Array, grad: jax.Array) -> tuple[jax.Array]:
    def cpu(x: jax.Array, grad: jax.Array) -> jax.Array:
        return untaps([grad] * (window[0] * window[1]), x.shape, window, strides, pads)

    def xla(x: jax.Array, grad: jax.Array) -> jax.Array:
        return jax.vjp(lambda x: _xla_sum_pool(x, window, strides, pads), x)[1](grad)[0]

    return (by_platform(x, grad, choice=choice, cpu=cpu, xla=xla),)


_sum_pool.defvjp(lambda x, *static: (_sum_pool(x, *static), x), _sum_pool_bwd)
