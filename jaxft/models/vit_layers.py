"""Layers of networks on tokens [B, N, D], which the Vision Transformer and its descendants share."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxft.errors import JaxftError
from jaxft.models.layers import Conv, Dense, gelu, lecun

STAGES = 4  # the blocks are parted into as many


def gelu_tanh(x: jax.Array) -> jax.Array:
    """The GELU by way of tanh (Hendrycks & Gimpel, 2016)."""
    return 0.5 * x * (1 + jnp.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def quick_gelu(x: jax.Array) -> jax.Array:
    """The GELU by way of the logistic function (Hendrycks & Gimpel, 2016): what CLIP has."""
    return x * nn.sigmoid(1.702 * x)


ACTIVATIONS = {"gelu": gelu, "gelu_tanh": gelu_tanh, "quick_gelu": quick_gelu}


class PatchEmbed(nn.Module):
    """Images [B, H, W, C] -> [B, H / patch * W / patch, D]: one linear map of each patch."""

    width: int
    patch: int
    bias: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = Conv(self.width, self.patch, self.patch, bias=self.bias, dtype=self.dtype, name="proj")(x)
        return x.reshape(x.shape[0], -1, self.width)


def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Queries [B, heads, M, D / heads] and keys and values [B, heads, N, D / heads] -> [B, M, D]. The softmax is in f32.

    Its division comes after the product with the values (Dao et al., 2022, arXiv:2205.14135), on D / heads numbers a token
    instead of N.
    """
    # Written out: on the CPU a seventh faster than jax.nn.dot_product_attention, whose default on accelerators is the same.
    wide = jnp.promote_types(q.dtype, jnp.float32)
    similar = jnp.einsum("bhqd,bhkd->bhqk", q * q.shape[-1] ** -0.5, k, preferred_element_type=wide)
    weights = jnp.exp(similar - jax.lax.stop_gradient(similar.max(-1, keepdims=True)))
    x = jnp.einsum("bhqk,bhkd->bhqd", weights.astype(q.dtype), v) / weights.sum(-1, keepdims=True).astype(q.dtype)
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


class Attention(nn.Module):
    """Self-attention of several heads; query, key and value come from one dense layer."""

    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, tokens, width = x.shape
        packed = Dense(3 * width, dtype=self.dtype, name="qkv")(x)
        packed = packed.reshape(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = packed.transpose(2, 0, 3, 1, 4)  # each [B, heads, N, D / heads]
        return Dense(width, dtype=self.dtype, name="proj")(attend(q, k, v))


class Mlp(nn.Module):
    """Dense to `hidden`, the activation, dense."""

    hidden: int
    activation: str
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        x = Dense(self.hidden or 4 * width, dtype=self.dtype, name="fc1")(x)
        if self.activation == "swiglu":
            gate, x = jnp.split(x, 2, axis=-1)
            x = nn.silu(gate) * x
        else:
            x = ACTIVATIONS[self.activation](x)
        return Dense(width, dtype=self.dtype, name="fc2")(x)


class LayerScale(nn.Module):
    """A factor for each channel: `gamma` [D]."""

    initial: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return x * self.param("gamma", nn.initializers.constant(self.initial), (x.shape[-1],)).astype(self.dtype)


class Packed(nn.Module):
    """A dense layer of 3 D outputs of which the query takes the first third, keys and values the rest."""

    dtype: Any

    @nn.compact
    def __call__(self, query: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        width = x.shape[-1]
        kernel = self.param("kernel", lecun, (width, 3 * width)).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (3 * width,)).astype(self.dtype)
        return query @ kernel[:, :width] + bias[:width], x @ kernel[:, width:] + bias[width:]


def check_size(size: int, patch: int) -> None:
    """
    Raises:
      JaxftError: a size that is no whole number of patches.
    """
    if size % patch:
        lower = size // patch * patch
        raise JaxftError(
            f"size is {size}, not a multiple of the {patch} pixels of a patch: {lower} or {lower + patch} would be"
        )


def stage_of(depth: int, block: int) -> str:
    """The stage of a block: four stages of equal depth, the first ones longer where that does not divide."""
    return f"stage{block * STAGES // depth + 1}"


def stages_of_blocks(depth: int) -> dict[str, tuple[str, ...]]:
    """Stage name -> globs, of the blocks."""
    found: dict[str, tuple[str, ...]] = {}
    for number in range(depth):
        stage = stage_of(depth, number)
        found[stage] = (*found.get(stage, ()), f"blocks/{number}")
    return found
