"""Vision Transformer (Dosovitskiy et al., 2021) in timm's form (LayerNorm first, packed qkv) and names, and the module its
descendants share: DeiT (deit.py), DINOv2 (dinov2.py), CLIP's and SigLIP's image towers (clip.py, siglip.py).

Maps between stages are tokens [B, P + N, D]: the class token and its like, then the N patches row by row.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxft.errors import JaxftError
from jaxft.models.architecture import Architecture, Positions
from jaxft.models.heads import Head
from jaxft.models.layers import Dense, DropPath, LayerNorm, Train, path_of, recomputed, running
from jaxft.models.vit_layers import (
    Attention,
    LayerScale,
    Mlp,
    Packed,
    PatchEmbed,
    attend,
    check_size,
    stage_of,
    stages_of_blocks,
)  # fmt: skip
from jaxft.preprocessing import Preprocessing


@dataclasses.dataclass(frozen=True)
class Config:
    """A member of the family.

    Attributes:
      width, depth, heads: of the blocks.
      patch: side of a patch in pixels.
      hidden: outputs of a block's first dense layer; 0 is four times the width.
      activation: after it: a key of `ACTIVATIONS`, or "swiglu" (Shazeer, 2020): the SiLU of its first half times the second.
      epsilon: of every LayerNorm.
      class_token: whether there is one.
      dist_token: whether a token for distillation follows it.
      registers: how many tokens follow these that stand for no patch (Darcet et al., 2024).
      placed: how many of all these have a position; they are the first ones.
      pre_norm: whether there is a LayerNorm before the blocks; what makes tokens of patches has no bias then.
      layer_scale: what the scales of the residual branches begin with (Touvron et al., 2021); 0 is no scales.
      pool: what the features are: "token", the class token; "tokens", it and that of distillation, each with a head of its own,
        of which the logits are the mean; "avg", the mean of the patches; "token+avg", the class token and this mean, 2 D wide;
        "map", what a learnt query finds in the patches (Zhai et al., 2022).
    """

    width: int
    depth: int
    heads: int
    patch: int = 16
    hidden: int = 0
    activation: str = "gelu"
    epsilon: float = 1e-6
    class_token: bool = True
    dist_token: bool = False
    registers: int = 0
    placed: int = 1
    pre_norm: bool = False
    layer_scale: float = 0.0
    pool: str = "token"

    @property
    def tokens(self) -> dict[str, int]:
        """Those before the patches': parameter -> how many."""
        known = {"cls_token": int(self.class_token), "dist_token": int(self.dist_token), "reg_token": self.registers}
        return {name: number for name, number in known.items() if number}

    @property
    def prefix(self) -> int:
        """How many these are."""
        return sum(self.tokens.values())


class Block(nn.Module):
    """Attention and a small dense network, each on normalised tokens and added to its input."""

    config: Config
    drop_path: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        config = self.config
        attention = Attention(config.heads, self.dtype, name="attn")
        network = Mlp(config.hidden, config.activation, self.dtype, name="mlp")
        for number, layer in enumerate((attention, network), start=1):
            branch = layer(LayerNorm(config.epsilon, self.dtype, name=f"norm{number}")(x))
            if config.layer_scale:
                branch = LayerScale(config.layer_scale, self.dtype, name=f"ls{number}")(branch)
            x = x + DropPath(self.drop_path, of=path_of(self), name=f"drop_path{number}")(branch, train)
        return x


class Blocks(nn.Module):
    """All blocks; gives the tokens after each stage that is in `run`."""

    config: Config
    drop_path: float
    dtype: Any
    remat: frozenset[str]

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, run: list[str]) -> dict[str, jax.Array]:
        maps: dict[str, jax.Array] = {}
        for number in range(self.config.depth):
            stage = stage_of(self.config.depth, number)
            if stage in run:
                rate = self.drop_path * number / max(self.config.depth - 1, 1)
                make = recomputed(Block, stage in self.remat)
                x = maps[stage] = make(self.config, rate, self.dtype, name=str(number))(x, train)
        return maps


class AttentionPool(nn.Module):
    """Tokens [B, N, D] -> [B, D]: what a learnt query, `latent`, finds in them, then a dense network added to it."""

    config: Config
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        config, (batch, tokens, width) = self.config, x.shape
        latent = self.param("latent", nn.initializers.truncated_normal(width**-0.5), (1, 1, width)).astype(self.dtype)
        q, kv = Packed(self.dtype, name="qkv")(latent, x)
        q = jnp.broadcast_to(q.reshape(1, config.heads, 1, -1), (batch, config.heads, 1, width // config.heads))
        k, v = kv.reshape(batch, tokens, 2, config.heads, -1).transpose(2, 0, 3, 1, 4)
        x = Dense(width, dtype=self.dtype, name="proj")(attend(q, k, v))
        branch = LayerNorm(config.epsilon, self.dtype, name="norm")(x)
        return (x + Mlp(config.hidden, config.activation, self.dtype, name="mlp")(branch))[:, 0]


class ViT(nn.Module):
    """Images [B, size, size, C], or what the stage `start` takes, -> outputs of all stages from there."""

    config: Config
    num_classes: int
    size: int
    head: str = "linear"
    dropout: float = 0.0
    drop_path: float = 0.0
    dtype: Any = jnp.float32
    remat: frozenset[str] = frozenset()

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, start: str = "") -> dict[str, jax.Array]:
        config, run, found = self.config, running(stages(self.config), start), {}
        if "stem" in run:
            x = found["stem"] = self._stem(x)
        blocks = Blocks(config, self.drop_path, self.dtype, self.remat, name="blocks")(x, train, run)
        found, x = found | blocks, [x, *blocks.values()][-1]
        if "neck" in run:
            x = found["neck"] = LayerNorm(config.epsilon, self.dtype, name="norm")(x)
        features = x if start == "head" else self._pooled(x)
        head = functools.partial(Head, self.num_classes, self.head, self.dropout, dtype=self.dtype)
        if config.pool == "tokens":
            first, second = jnp.split(features, 2, axis=-1)
            logits = (head(name="head")(first, train) + head(name="head_dist")(second, train)) / 2
        else:
            logits = head(name="head")(features, train)
        return {**found, "features": features, "logits": logits}

    def _stem(self, x: jax.Array) -> jax.Array:
        """Images -> all tokens, with their positions."""
        config = self.config
        if x.shape[1:3] != (self.size, self.size):
            raise JaxftError(
                f"this network has positions for images of {self.size}x{self.size} pixels, these have "
                f"{x.shape[1]}x{x.shape[2]}: make it with size="
            )
        patches = PatchEmbed(config.width, config.patch, not config.pre_norm, self.dtype, name="patch_embed")(x)
        x = self._placed(patches)
        return LayerNorm(config.epsilon, self.dtype, name="norm_pre")(x) if config.pre_norm else x

    def _placed(self, patches: jax.Array) -> jax.Array:
        """All tokens, with their positions."""
        config, (batch, count, width) = self.config, patches.shape
        tokens = []
        for name, number in config.tokens.items():
            token = self.param(name, nn.initializers.normal(1e-6), (1, number, width)).astype(self.dtype)
            tokens.append(jnp.broadcast_to(token, (batch, number, width)))
        shape = (1, config.placed + count, width)
        positions = self.param("pos_embed", nn.initializers.truncated_normal(0.02), shape).astype(self.dtype)
        if config.placed < config.prefix:
            none = jnp.zeros((1, config.prefix - config.placed, width), self.dtype)
            positions = jnp.concatenate([positions[:, : config.placed], none, positions[:, config.placed :]], axis=1)
        return jnp.concatenate([*tokens, patches], axis=1) + positions

    def _pooled(self, x: jax.Array) -> jax.Array:
        pool, patches = self.config.pool, x[:, self.config.prefix :]
        if pool == "tokens":
            return x[:, :2].reshape(x.shape[0], -1)
        if pool == "avg":
            return patches.mean(1)
        if pool == "token+avg":
            return jnp.concatenate([x[:, 0], patches.mean(1)], axis=-1)
        return AttentionPool(self.config, self.dtype, name="attn_pool")(patches) if pool == "map" else x[:, 0]


def make(config: Config, *, size: int, **options: Any) -> ViT:
    """A `ViT`.

    Raises:
      JaxftError: a size that is no whole number of patches.
    """
    check_size(size, config.patch)
    return ViT(config, size=size, **options)


def stages(config: Config) -> dict[str, tuple[str, ...]]:
    """Stage name -> globs: what makes tokens, four stages of blocks, what follows them (`neck`), the head."""
    return {
        "stem": (*config.tokens, "pos_embed", "patch_embed", *(("norm_pre",) if config.pre_norm else ())),
        **stages_of_blocks(config.depth),
        "neck": ("norm", "attn_pool") if config.pool == "map" else ("norm",),
        "head": ("head", "head_dist") if config.pool == "tokens" else ("head",),
    }


def architecture(config: Config, preprocessing: Preprocessing, family: str = "vit") -> Architecture:
    return Architecture(
        family,
        config,
        make,
        stages,
        "patch_embed/proj/kernel",
        preprocessing,
        ("dropout", "drop_path", "size"),
        Positions("pos_embed", config.patch, prefix=config.placed),
    )


#: (width, depth, heads) of the usual sizes.
SIZES = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16), "huge": (1280, 32, 16)}
#: (Size, patch, native input size in pixels) of those that have weights, and whether there are any of Hugging Face's.
_MEMBERS = (
    ("tiny", 16, 224, False),
    ("tiny", 16, 384, False),
    ("small", 32, 224, False),
    ("small", 32, 384, False),
    ("small", 16, 224, True),
    ("small", 16, 384, False),
    ("small", 8, 224, True),
    ("base", 32, 224, True),
    ("base", 32, 384, True),
    ("base", 16, 224, True),
    ("base", 16, 384, True),
    ("base", 8, 224, True),
    ("large", 32, 224, True),
    ("large", 32, 384, True),
    ("large", 16, 224, True),
    ("large", 16, 384, True),
    ("large", 14, 224, False),
    ("huge", 14, 224, True),
)
_HALF = (0.5, 0.5, 0.5)
ARCHITECTURES = {
    f"vit_{name}_patch{patch}_{size}": architecture(
        Config(*SIZES[name], patch), Preprocessing(size, 248 if size == 224 else size, "bicubic", _HALF, _HALF)
    )
    for name, patch, size, _ in _MEMBERS
}
#: As Hugging Face's transformers has them: LayerNorms with another epsilon (on fresh weights logits change by 3e-4 of the
#: largest), and pictures squashed to a square.
ARCHITECTURES |= {
    f"vit_{name}_patch{patch}_{size}_hf": architecture(
        Config(*SIZES[name], patch, epsilon=1e-12), Preprocessing(size, size, "bilinear", _HALF, _HALF, squash=True)
    )
    for name, patch, size, there in _MEMBERS
    if there
}
