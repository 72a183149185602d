"""Batch normalisation with the gradient written out: two sums and one pass over the map."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxft.ops.lowering import forced

Normalised = tuple[jax.Array, jax.Array, jax.Array]


def at_least_f32(x: jax.Array) -> jax.Array:
    """`x` in f32, or f64 where it is: statistics and logits are never narrower, whatever a network computes in."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def batch_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> Normalised:
    """Normalises a batch with its own mean and biased variance over all axes but the last (Ioffe & Szegedy, 2015).

    Derived automatically, the gradient of the variance goes over the map several times more. With `JAXFT_OPS=xla` it is, and
    forward mode is possible.

    Args:
      x: [..., C].
      scale, bias: [C], f32.
      epsilon: added to the variance.

    Returns:
      (y [..., C], mean [C], variance [C]), all f32, or f64 where x is.
    """
    return _batch_norm(x, scale, bias, epsilon) if forced() == "xla" else _written_out(x, scale, bias, epsilon)


def _axes(x: jax.Array) -> tuple[int, ...]:
    return tuple(range(x.ndim - 1))


def _batch_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> Normalised:
    x = at_least_f32(x)
    mean = x.mean(_axes(x))
    var = jnp.square(x - mean).mean(_axes(x))
    factor = scale * jax.lax.rsqrt(var + epsilon)
    return x * factor + (bias - mean * factor), mean, var


_written_out = jax.custom_vjp(_batch_norm, nondiff_argnums=(3,))


def _forward(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> Any:
    found = _batch_norm(x, scale, bias, epsilon)
    return found, (x, scale, *found[1:])


def _backward(epsilon: float, saved: Any, grads: Normalised) -> Normalised:
    x, scale, mean, var = saved
    grad, of_mean, of_var = grads
    count = x.size // x.shape[-1]
    inverse = jax.lax.rsqrt(var + epsilon)
    centred = at_least_f32(x) - mean
    for_bias = grad.sum(_axes(x))
    for_scale = inverse * (grad * centred).sum(_axes(x))
    # By the chain rule every pixel's is a * grad + b * (x - mean) + c, with three numbers a channel.
    a = scale * inverse
    b = (2 * of_var - a * inverse * for_scale) / count
    c = (of_mean - a * for_bias) / count
    return (a * grad + (b * centred + c)).astype(x.dtype), for_scale, for_bias


_written_out.defvjp(_forward, _backward)
