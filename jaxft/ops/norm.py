"""Batch and layer normalisation with their gradients written out: two sums and one pass over the map.

Derived automatically, the gradients of mean and variance go over the map several times more. With `JAXFT_OPS=xla` they are
derived, and forward mode is possible.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxft.ops.lowering import forced


def at_least_f32(x: jax.Array) -> jax.Array:
    """`x` in f32, or f64 where it is: statistics and logits are never narrower, whatever a network computes in."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def batch_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, *, parts: int = 1, axis: str = ""
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises a batch with its own mean and biased variance over all axes but the last (Ioffe & Szegedy, 2015).

    Args:
      x: [..., C].
      scale, bias: [C], f32.
      epsilon: added to the variance.
      parts: the first axis is taken in so many equal parts, each normalised with its own statistics.
      axis: name of a mapped axis over which the statistics go; "" is none.

    Returns:
      (y [..., C], mean [C], variance [C]), all f32, or f64 where x is. Of several parts, mean and variance are the first one's:
      torch's DistributedDataParallel hands on the buffers of its first process.

    Raises:
      ValueError: the first axis does not split into `parts`.
    """
    one = _chosen(_batch_norm, _batch_norm_written_out)
    if parts == 1:
        return one(x, scale, bias, epsilon, axis)
    if x.shape[0] % parts:
        raise ValueError(f"a batch of {x.shape[0]} does not split into {parts} equal parts for BatchNorm")
    split = x.reshape(parts, x.shape[0] // parts, *x.shape[1:])
    y, mean, var = jax.vmap(lambda part: one(part, scale, bias, epsilon, axis))(split)
    return y.reshape(x.shape), mean[0], var[0]


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> jax.Array:
    """Normalises each vector with its own mean and biased variance over the last axis (Ba et al., 2016).

    Args:
      x: [..., D].
      scale, bias: [D], f32.
      epsilon: added to the variance.

    Returns:
      [..., D], f32, or f64 where x is.
    """
    return _chosen(_layer_norm, _layer_norm_written_out)(x, scale, bias, epsilon)


def _chosen(derived: Callable[..., Any], written_out: Callable[..., Any]) -> Callable[..., Any]:
    return derived if forced() == "xla" else written_out


def _rows(x: jax.Array) -> tuple[int, ...]:
    return tuple(range(x.ndim - 1))


def _over(axis: str, value: jax.Array) -> jax.Array:
    return lax.pmean(value, axis) if axis else value


def _sum_over(axis: str, values: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    return lax.psum(values, axis) if axis else values


def _batch_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, axis: str
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x = at_least_f32(x)
    mean = _over(axis, x.mean(_rows(x)))
    var = _over(axis, jnp.square(x - mean).mean(_rows(x)))
    factor = scale * lax.rsqrt(var + epsilon)
    return x * factor + (bias - mean * factor), mean, var


def _batch_norm_forward(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, axis: str) -> Any:
    found = _batch_norm(x, scale, bias, epsilon, axis)
    return found, (x, scale, *found[1:])


def _batch_norm_backward(epsilon: float, axis: str, saved: Any, grads: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, scale, mean, var = saved
    grad, of_mean, of_var = grads
    count = x.size // x.shape[-1]
    inverse = lax.rsqrt(var + epsilon)
    centred = at_least_f32(x) - mean
    for_bias = grad.sum(_rows(x))
    for_scale = inverse * (grad * centred).sum(_rows(x))
    # Statistics over an axis carry the gradients of all its devices; those of scale and bias are this device's own share.
    all_bias, all_scale, of_mean, of_var = _sum_over(axis, (for_bias, for_scale, of_mean, of_var))
    count = count * lax.axis_size(axis) if axis else count
    # By the chain rule every pixel's is a * grad + b * (x - mean) + c, with three numbers a channel.
    a = scale * inverse
    b = (2 * of_var - a * inverse * all_scale) / count
    c = (of_mean - a * all_bias) / count
    return (a * grad + (b * centred + c)).astype(x.dtype), for_scale, for_bias


_batch_norm_written_out = jax.custom_vjp(_batch_norm, nondiff_argnums=(3, 4))
_batch_norm_written_out.defvjp(_batch_norm_forward, _batch_norm_backward)


def _statistics(x: jax.Array, epsilon: float) -> tuple[jax.Array, jax.Array]:
    """(mean, one over the standard deviation), each [..., 1]."""
    x = at_least_f32(x)
    mean = x.mean(-1, keepdims=True)
    return mean, lax.rsqrt(jnp.square(x - mean).mean(-1, keepdims=True) + epsilon)


def _layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> jax.Array:
    return _layer_norm_forward(x, scale, bias, epsilon)[0]


def _layer_norm_forward(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> Any:
    mean, inverse = _statistics(x, epsilon)
    return (at_least_f32(x) - mean) * inverse * scale + bias, (x, scale, mean, inverse)


def _layer_norm_backward(epsilon: float, saved: Any, grad: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, scale, mean, inverse = saved
    normal = (at_least_f32(x) - mean) * inverse
    scaled = grad * scale
    along = (scaled * normal).mean(-1, keepdims=True)
    for_x = inverse * (scaled - scaled.mean(-1, keepdims=True) - normal * along)
    return for_x.astype(x.dtype), (grad * normal).sum(_rows(x)), grad.sum(_rows(x))


_layer_norm_written_out = jax.custom_vjp(_layer_norm, nondiff_argnums=(3,))
_layer_norm_written_out.defvjp(_layer_norm_forward, _layer_norm_backward)
