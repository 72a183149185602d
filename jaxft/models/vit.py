"""Vision Transformer (Dosovitskiy et al., 2021) in timm's form (LayerNorm first, exact GELU, packed qkv) and names.

Maps between stages are tokens [B, 1 + N, D]: the class token, then the N patches row by row.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxft.errors import JaxftError
from jaxft.models.architecture import Architecture, Positions
from jaxft.models.layers import Conv, Dense, DropPath, Head, LayerNorm, Train, gelu, path_of, recomputed, running
from jaxft.preprocessing import Preprocessing

STAGES = 4  # the blocks are parted into as many


@dataclasses.dataclass(frozen=True)
class Config:
    """A member of the family.

    Attributes:
      width, depth, heads: of the blocks.
      patch: side of a patch in pixels.
    """

    width: int
    depth: int
    heads: int
    patch: int = 16


class PatchEmbed(nn.Module):
    """Images [B, H, W, C] -> [B, H / patch * W / patch, D]: one linear map of each patch."""

    width: int
    patch: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = Conv(self.width, self.patch, self.patch, dtype=self.dtype, name="proj")(x)
        return x.reshape(x.shape[0], -1, self.width)


class Attention(nn.Module):
    """Self-attention of several heads; query, key and value come from one dense layer. The softmax is in f32.

    Its division comes after the product with the values (Dao et al., 2022, arXiv:2205.14135), on D / heads numbers a token
    instead of N.
    """

    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, tokens, width = x.shape
        packed = Dense(3 * width, dtype=self.dtype, name="qkv")(x)
        packed = packed.reshape(batch, tokens, 3, self.heads, width // self.heads)
        # Written out: on the CPU a seventh faster than jax.nn.dot_product_attention, whose default on accelerators is the same.
        q, k, v = packed.transpose(2, 0, 3, 1, 4)  # each [B, heads, N, D / heads]
        wide = jnp.promote_types(x.dtype, jnp.float32)
        similar = jnp.einsum("bhqd,bhkd->bhqk", q * q.shape[-1] ** -0.5, k, preferred_element_type=wide)
        weights = jnp.exp(similar - jax.lax.stop_gradient(similar.max(-1, keepdims=True)))
        x = jnp.einsum("bhqk,bhkd->bhqd", weights.astype(x.dtype), v) / weights.sum(-1, keepdims=True).astype(x.dtype)
        x = x.transpose(0, 2, 1, 3).reshape(batch, tokens, width)
        return Dense(width, dtype=self.dtype, name="proj")(x)


class Mlp(nn.Module):
    """Dense to four times the width, GELU, dense."""

    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        x = gelu(Dense(4 * width, dtype=self.dtype, name="fc1")(x))
        return Dense(width, dtype=self.dtype, name="fc2")(x)


class Block(nn.Module):
    """Attention and a small dense network, each on normalised tokens and added to its input."""

    heads: int
    drop_path: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        own = path_of(self)
        branch = Attention(self.heads, self.dtype, name="attn")(LayerNorm(dtype=self.dtype, name="norm1")(x))
        x = x + DropPath(self.drop_path, of=own, name="drop_path1")(branch, train)
        branch = Mlp(self.dtype, name="mlp")(LayerNorm(dtype=self.dtype, name="norm2")(x))
        return x + DropPath(self.drop_path, of=own, name="drop_path2")(branch, train)


class Blocks(nn.Module):
    """All blocks; gives the tokens after each stage that is in `run`."""

    config: Config
    drop_path: float
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, run: list[str]) -> dict[str, jax.Array]:
        make, maps = recomputed(Block, self.remat), {}
        for number in range(self.config.depth):
            stage = stage_of(self.config, number)
            if stage in run:
                rate = self.drop_path * number / max(self.config.depth - 1, 1)
                x = maps[stage] = make(self.config.heads, rate, self.dtype, name=str(number))(x, train)
        return maps


class ViT(nn.Module):
    """Images [B, size, size, C], or what the stage `start` takes, -> outputs of all stages from there."""

    config: Config
    num_classes: int
    size: int
    head: str = "linear"
    dropout: float = 0.0
    drop_path: float = 0.0
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, start: str = "") -> dict[str, jax.Array]:
        width = self.config.width
        run, found = running(stages(self.config), start), {}
        if "stem" in run:
            if x.shape[1:3] != (self.size, self.size):
                raise JaxftError(
                    f"this network has positions for images of {self.size}x{self.size} pixels, these have "
                    f"{x.shape[1]}x{x.shape[2]}: make it with size="
                )
            patches = PatchEmbed(width, self.config.patch, self.dtype, name="patch_embed")(x)
            cls = self.param("cls_token", nn.initializers.normal(1e-6), (1, 1, width)).astype(self.dtype)
            shape = (1, 1 + patches.shape[1], width)
            positions = self.param("pos_embed", nn.initializers.truncated_normal(0.02), shape).astype(self.dtype)
            cls = jnp.broadcast_to(cls, (x.shape[0], 1, width))
            x = found["stem"] = jnp.concatenate([cls, patches], axis=1) + positions
        found |= Blocks(self.config, self.drop_path, self.dtype, self.remat, name="blocks")(x, train, run)
        if "neck" in run:
            x = found["neck"] = LayerNorm(dtype=self.dtype, name="norm")(found.get(f"stage{STAGES}", x))
        features = x if start == "head" else x[:, 0]
        logits = Head(self.num_classes, self.head, self.dropout, dtype=self.dtype, name="head")(features, train)
        return {**found, "features": features, "logits": logits}


def make(config: Config, *, size: int, **options: Any) -> ViT:
    """A `ViT`.

    Raises:
      JaxftError: a size that is no whole number of patches.
    """
    patch = config.patch
    if size % patch:
        lower = size // patch * patch
        raise JaxftError(
            f"size is {size}, not a multiple of the {patch} pixels of a patch: {lower} or {lower + patch} would be"
        )
    return ViT(config, size=size, **options)


def stage_of(config: Config, block: int) -> str:
    """The stage of a block: four stages of equal depth, the first ones longer where that does not divide."""
    return f"stage{block * STAGES // config.depth + 1}"


def stages(config: Config) -> dict[str, tuple[str, ...]]:
    """Stage name -> globs: what makes tokens, four stages of blocks, the last LayerNorm (`neck`), the head."""
    blocks: dict[str, tuple[str, ...]] = {}
    for number in range(config.depth):
        stage = stage_of(config, number)
        blocks[stage] = (*blocks.get(stage, ()), f"blocks/{number}")
    return {"stem": ("cls_token", "pos_embed", "patch_embed"), **blocks, "neck": ("norm",), "head": ("head",)}


def architecture(config: Config, preprocessing: Preprocessing) -> Architecture:
    return Architecture(
        "vit",
        config,
        make,
        stages,
        "patch_embed/proj/kernel",
        preprocessing,
        ("dropout", "drop_path", "size"),
        Positions("pos_embed", config.patch, prefix=1),
    )


_WIDTHS = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}
ARCHITECTURES = {
    f"vit_{name}_patch16_224": architecture(
        Config(width, 12, heads), Preprocessing(224, 248, "bicubic", (0.5,) * 3, (0.5,) * 3)
    )
    for name, (width, heads) in _WIDTHS.items()
}
