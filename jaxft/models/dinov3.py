"""DINOv3 (Siméoni et al., 2025) in timm's form and names: a Vision Transformer that rotates queries and keys by where their
patch is (Su et al., 2021), and so takes square images of any whole number of patches.

Keys have no bias. timm leaves out those of queries and values too, which are zero in most published weights; its "_qkvb" have
them. Its features are the mean of the patches; those of Hugging Face and the authors, "_hf", are the class token.
Published weights have no head, which is therefore new. The authors stretched the coordinates at random; here they stay.

Maps between stages are tokens [B, 1 + registers + N, D]: the class token, the registers, the patches row by row.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxft.errors import JaxftError
from jaxft.models.architecture import Architecture
from jaxft.models.heads import Head
from jaxft.models.layers import Dense, DropPath, LayerNorm, Train, path_of, recomputed, running
from jaxft.models.vit_layers import Mlp, PatchEmbed, attend, check_size, stage_of, stages_of_blocks
from jaxft.preprocessing import Preprocessing

BASE = 100.0  # of the rotations' periods


@dataclasses.dataclass(frozen=True)
class Config:
    """A member of the family.

    Attributes:
      width, depth, heads: of the blocks.
      gated: whether the dense network of a block is gated (Shazeer, 2020).
      bias: whether queries and values have a bias.
      pool: what the features are: "avg", the mean of the patches, or "token", the class token.
      patch: side of a patch in pixels.
      registers: tokens beside the class token that stand for no patch (Darcet et al., 2024).
      epsilon: of every LayerNorm.
      layer_scale: what the scales of the residual branches begin with (Touvron et al., 2021).
    """

    width: int
    depth: int
    heads: int
    gated: bool = False
    bias: bool = False
    pool: str = "avg"
    patch: int = 16
    registers: int = 4
    epsilon: float = 1e-5
    layer_scale: float = 1e-5


def rotations(config: Config, tokens: int, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines [tokens, D / heads] of the angles by which queries and keys are rotated; those of no patch are not."""
    count, quarter = tokens - 1 - config.registers, config.width // config.heads // 4
    side = math.isqrt(count)
    centres = 2 * (np.arange(side) + 0.5) / side - 1
    places = np.stack(np.meshgrid(centres, centres, indexing="ij"), -1).reshape(-1, 2, 1)
    angles = 2 * np.pi * places / BASE ** (np.arange(quarter) / quarter)
    angles = np.tile(angles.reshape(count, 2 * quarter), 2)
    angles = np.concatenate([np.zeros((tokens - count, 4 * quarter)), angles])
    return jnp.asarray(np.cos(angles), dtype), jnp.asarray(np.sin(angles), dtype)


def rotated(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Queries or keys [B, heads, N, D / heads]: each pair of channels, one of either half, turned by its angle."""
    first, second = jnp.split(x, 2, axis=-1)
    return (x * cos + jnp.concatenate([-second, first], axis=-1) * sin).astype(x.dtype)


class Attention(nn.Module):
    """Self-attention of several heads, with rotated queries and keys."""

    heads: int
    bias: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
        batch, tokens, width = x.shape
        packed = Dense(3 * width, bias=False, dtype=self.dtype, name="qkv")(x)
        if self.bias:
            q, v = (self.param(name, nn.initializers.zeros, (width,)) for name in ("q_bias", "v_bias"))
            packed = packed + jnp.concatenate([q, jnp.zeros_like(q), v]).astype(self.dtype)
        q, k, v = packed.reshape(batch, tokens, 3, self.heads, width // self.heads).transpose(2, 0, 3, 1, 4)
        x = attend(rotated(q, cos, sin), rotated(k, cos, sin), v)
        return Dense(width, dtype=self.dtype, name="proj")(x)


class GatedMlp(nn.Module):
    """The SiLU of one dense layer, to four times the width, times another; dense."""

    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        gate, x = (Dense(4 * width, dtype=self.dtype, name=name)(x) for name in ("fc1_g", "fc1_x"))
        return Dense(width, dtype=self.dtype, name="fc2")(nn.silu(gate) * x)


class Block(nn.Module):
    """Attention and a small dense network, each on normalised tokens, scaled, and added to its input."""

    config: Config
    drop_path: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, cos: jax.Array, sin: jax.Array) -> jax.Array:
        config, width = self.config, x.shape[-1]

        def added(x: jax.Array, branch: jax.Array, number: int) -> jax.Array:
            scale = self.param(f"gamma_{number}", nn.initializers.constant(config.layer_scale), (width,)).astype(self.dtype)
            return x + DropPath(self.drop_path, of=path_of(self), name=f"drop_path{number}")(scale * branch, train)

        normed = LayerNorm(config.epsilon, self.dtype, name="norm1")(x)
        x = added(x, Attention(config.heads, config.bias, self.dtype, name="attn")(normed, cos, sin), 1)
        normed = LayerNorm(config.epsilon, self.dtype, name="norm2")(x)
        network = GatedMlp(self.dtype, name="mlp") if config.gated else Mlp(0, "gelu", self.dtype, name="mlp")
        return added(x, network(normed), 2)


class Blocks(nn.Module):
    """All blocks; gives the tokens after each stage that is in `run`."""

    config: Config
    drop_path: float
    dtype: Any
    remat: frozenset[str]

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, run: list[str]) -> dict[str, jax.Array]:
        depth, maps = self.config.depth, dict[str, jax.Array]()
        for number in range(depth):
            stage = stage_of(depth, number)
            if stage in run:
                if not maps:
                    cos, sin = rotations(self.config, x.shape[1], jnp.promote_types(self.dtype, jnp.float32))
                rate = self.drop_path * number / max(depth - 1, 1)
                make = recomputed(Block, stage in self.remat)
                x = maps[stage] = make(self.config, rate, self.dtype, name=str(number))(x, train, cos, sin)
        return maps


class DINOv3(nn.Module):
    """Images [B, H, W, C], or what the stage `start` takes, -> outputs of all stages from there."""

    config: Config
    num_classes: int
    head: str = "linear"
    dropout: float = 0.0
    drop_path: float = 0.0
    dtype: Any = jnp.float32
    remat: frozenset[str] = frozenset()

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, start: str = "") -> dict[str, jax.Array]:
        config, run, found = self.config, running(stages(self.config), start), {}
        if "stem" in run:
            if x.shape[1] != x.shape[2]:
                raise JaxftError(f"this network takes square images, these have {x.shape[1]}x{x.shape[2]} pixels")
            check_size(x.shape[1], config.patch)
            patches = PatchEmbed(config.width, config.patch, True, self.dtype, name="patch_embed")(x)
            tokens = []
            for name, number in (("cls_token", 1), ("reg_token", config.registers)):
                token = self.param(name, nn.initializers.truncated_normal(0.02), (1, number, config.width)).astype(self.dtype)
                tokens.append(jnp.broadcast_to(token, (x.shape[0], number, config.width)))
            x = found["stem"] = jnp.concatenate([*tokens, patches], axis=1)
        blocks = Blocks(config, self.drop_path, self.dtype, self.remat, name="blocks")(x, train, run)
        found, x = found | blocks, [x, *blocks.values()][-1]
        if "neck" in run:
            x = found["neck"] = LayerNorm(config.epsilon, self.dtype, name="norm")(x)
        if start != "head":
            x = x[:, 0] if config.pool == "token" else x[:, 1 + config.registers :].mean(1)
        logits = Head(self.num_classes, self.head, self.dropout, dtype=self.dtype, name="head")(x, train)
        return {**found, "features": x, "logits": logits}


def stages(config: Config) -> dict[str, tuple[str, ...]]:
    """Stage name -> globs: what makes tokens, four stages of blocks, the last LayerNorm (`neck`), the head."""
    stem = ("cls_token", "reg_token", "patch_embed")
    return {"stem": stem, **stages_of_blocks(config.depth), "neck": ("norm",), "head": ("head",)}


def architecture(config: Config) -> Architecture:
    return Architecture(
        "dinov3", config, DINOv3, stages, "patch_embed/proj/kernel", Preprocessing(256, 256, "bicubic"), min_size=config.patch
    )


#: Size -> width, depth, heads, gated.
_SIZES = {
    "small": (384, 12, 6, False),
    "small_plus": (384, 12, 6, True),
    "base": (768, 12, 12, False),
    "large": (1024, 24, 16, False),
    "huge_plus": (1280, 32, 20, True),
}
ARCHITECTURES = {
    f"vit_{size}_patch16_dinov3{end}": architecture(Config(*shape, bias, pool))
    for end, bias, pool in (("", False, "avg"), ("_qkvb", True, "avg"), ("_hf", True, "token"))
    for size, shape in _SIZES.items()
}
