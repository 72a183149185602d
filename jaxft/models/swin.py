"""Swin Transformer (Liu et al., 2021) and Swin Transformer V2 (Liu et al., 2022) in timm's form and names.

Any size from 32 pixels, square or not. Windows keep their size, so that no parameter depends on that of the image: as in
torchvision, a map is padded with zeros at the right and the bottom to whole windows (padded tokens are attended to like any
others), then shifted, and not shifted where one window spans it. Where all maps are whole windows, as at the native size, timm
computes the same; elsewhere it makes windows no larger than the map, with tables of their own, and shifts before it pads.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxft import ops
from jaxft.models.architecture import Architecture
from jaxft.models.heads import HeadFc
from jaxft.models.layers import Conv, Dense, DropPath, LayerNorm, Train, gelu, path_of, recomputed, rising_rates, running
from jaxft.models.windows import coordinates, offsets, windowed
from jaxft.ops.norm import at_least_f32
from jaxft.preprocessing import Preprocessing

EPSILON = 1e-5  # of every LayerNorm
PATCH = 4  # side in pixels
HIDDEN = 512  # of the network that makes the second version's position biases


@dataclasses.dataclass(frozen=True)
class Config:
    """A member of the family.

    Attributes:
      width: of the first stage; each next one's is twice that.
      depths, heads: of the blocks of each stage.
      windows: side of each stage's windows in tokens.
      v2: whether attention compares cosines, a small network makes its position biases, and a branch is normalised at its end.
    """

    width: int
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    windows: tuple[int, int, int, int]
    v2: bool = False


def _unit(x: jax.Array) -> jax.Array:
    """Vectors of length 1; those of 0, as keys of padding are, stay."""
    squares = jnp.square(at_least_f32(x)).sum(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squares, 1e-24)).astype(x.dtype)


class PositionBias(nn.Module):
    """The second version's bias of every offset [(2 window - 1)^2, heads], from 0 to 16: a small network of coordinates."""

    heads: int
    window: int
    dtype: Any

    @nn.compact
    def __call__(self) -> jax.Array:
        x = jnp.asarray(coordinates(self.window), self.dtype)
        x = nn.relu(Dense(HIDDEN, dtype=self.dtype, name="0")(x))
        return 16 * nn.sigmoid(Dense(self.heads, bias=False, dtype=self.dtype, name="2")(x))


class Attention(nn.Module):
    """Self-attention in windows [B, windows, N, C]; similarities and softmax are in f32.

    To the similarity of two tokens is added a bias that depends on their offset. In the second version keys have no bias of
    their own: `qv_bias` is that of queries, then that of values.
    """

    heads: int
    window: int
    v2: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, regions: np.ndarray | None) -> jax.Array:
        batch, windows, tokens, width = x.shape
        wide = jnp.promote_types(self.dtype, jnp.float32)
        packed = Dense(3 * width, bias=not self.v2, dtype=self.dtype, name="qkv")(x)
        if self.v2:
            bias = self.param("qv_bias", nn.initializers.zeros, (2 * width,)).astype(self.dtype)
            packed = packed + jnp.concatenate([bias[:width], jnp.zeros_like(bias[:width]), bias[width:]])
        packed = packed.reshape(batch, windows, tokens, 3, self.heads, width // self.heads)
        q, k, v = packed.transpose(3, 0, 1, 4, 2, 5)  # each [B, windows, heads, N, C / heads]
        if self.v2:
            q, k, table = _unit(q), _unit(k), PositionBias(self.heads, self.window, wide, name="cpb_mlp")()
        else:
            shape = ((2 * self.window - 1) ** 2, self.heads)
            table = self.param("relative_position_bias_table", nn.initializers.truncated_normal(0.02), shape)
            q = q * q.shape[-1] ** -0.5
        similar = jnp.einsum("bwhqd,bwhkd->bwhqk", q, k, preferred_element_type=wide)
        if self.v2:
            logarithm = self.param("logit_scale", nn.initializers.constant(math.log(10)), (self.heads, 1, 1))
            similar = similar * jnp.exp(jnp.minimum(logarithm, math.log(100)))
        added = table[offsets(self.window)].transpose(2, 0, 1)  # [heads, N, N]
        if regions is not None:
            apart = regions[:, None, :, None] != regions[:, None, None, :]
            added = added + jnp.where(apart, jnp.asarray(-100, wide), 0)  # [windows, heads, N, N]
        similar = similar + added
        # The division comes after the product with the values, as in `jaxft.models.vit`.
        weights = jnp.exp(similar - jax.lax.stop_gradient(similar.max(-1, keepdims=True)))
        x = jnp.einsum("bwhqk,bwhkd->bwhqd", weights.astype(x.dtype), v) / weights.sum(-1, keepdims=True).astype(x.dtype)
        x = x.swapaxes(2, 3).reshape(batch, windows, tokens, width)
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
    """Attention in windows and a small dense network, each added to its input: of its LayerNorm, or, in the second version,
    through one."""

    heads: int
    window: int
    shifted: bool
    v2: bool
    drop_path: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        attention = Attention(self.heads, self.window, self.v2, self.dtype, name="attn")
        x = x + self._branch(x, 1, lambda x: windowed(x, self.window, self.shifted, attention), train)
        return x + self._branch(x, 2, Mlp(self.dtype, name="mlp"), train)

    def _branch(self, x: jax.Array, number: int, layer: Callable[[jax.Array], jax.Array], train: Train) -> jax.Array:
        norm = LayerNorm(EPSILON, dtype=self.dtype, name=f"norm{number}")
        x = norm(layer(x)) if self.v2 else layer(norm(x))
        return DropPath(self.drop_path, of=path_of(self), name=f"drop_path{number}")(x, train)


class Merge(nn.Module):
    """Halves a map: the four tokens of each 2x2, column by column, become one of half their width together.

    An odd side is padded with zeros.
    """

    v2: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
        rows, columns = (height + 1) // 2, (width + 1) // 2
        x = x.reshape(batch, rows, 2, columns, 2, channels).transpose(0, 1, 3, 4, 2, 5)
        x = x.reshape(batch, rows, columns, 4 * channels)
        norm = LayerNorm(EPSILON, dtype=self.dtype, name="norm")
        reduction = Dense(2 * channels, bias=False, dtype=self.dtype, name="reduction")
        return norm(reduction(x)) if self.v2 else reduction(norm(x))


class Blocks(nn.Module):
    """The blocks of a stage; windows of every second one are shifted."""

    heads: int
    window: int
    v2: bool
    rates: tuple[float, ...]
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        make = recomputed(Block, self.remat)
        for number, rate in enumerate(self.rates):
            x = make(self.heads, self.window, number % 2 == 1, self.v2, rate, self.dtype, name=str(number))(x, train)
        return x


class Layer(nn.Module):
    """A stage: all but the first halve the map, then come the blocks."""

    config: Config
    number: int
    rates: tuple[float, ...]
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        if self.number:
            x = Merge(self.config.v2, self.dtype, name="downsample")(x)
        heads, window = self.config.heads[self.number], self.config.windows[self.number]
        return Blocks(heads, window, self.config.v2, self.rates, self.dtype, self.remat, name="blocks")(x, train)


class Layers(nn.Module):
    """The four stages; gives the map after each that is in `run`."""

    config: Config
    drop_path: float
    dtype: Any
    remat: frozenset[str]

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, run: list[str]) -> dict[str, jax.Array]:
        maps = {}
        for number, rates in enumerate(rising_rates(self.drop_path, self.config.depths)):
            if f"stage{number + 1}" in run:
                layer = Layer(self.config, number, rates, self.dtype, f"stage{number + 1}" in self.remat, name=str(number))
                x = maps[f"stage{number + 1}"] = layer(x, train)
        return maps


class PatchEmbed(nn.Module):
    """Images [B, H, W, C] -> [B, H / 4, W / 4, D]: one linear map of each patch, and LayerNorm."""

    width: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = Conv(self.width, PATCH, PATCH, dtype=self.dtype, name="proj")(x)
        return LayerNorm(EPSILON, dtype=self.dtype, name="norm")(x)


class Swin(nn.Module):
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
        run, found = running(stages(self.config), start), {}
        if "stem" in run:
            x = found["stem"] = PatchEmbed(self.config.width, self.dtype, name="patch_embed")(x)
        found |= Layers(self.config, self.drop_path, self.dtype, self.remat, name="layers")(x, train, run)
        if "neck" in run:
            x = found["neck"] = LayerNorm(EPSILON, dtype=self.dtype, name="norm")(found.get("stage4", x))
        features = x if start == "head" else ops.global_avg_pool(x)
        logits = HeadFc(self.num_classes, self.head, self.dropout, self.dtype, name="head")(features, train)
        return {**found, "features": features, "logits": logits}


def stages(config: Config) -> dict[str, tuple[str, ...]]:
    """Stage name -> globs; `neck` is the last LayerNorm."""
    return {
        "stem": ("patch_embed",),
        **{f"stage{number + 1}": (f"layers/{number}",) for number in range(4)},
        "neck": ("norm",),
        "head": ("head/fc",),
    }


def architecture(config: Config, size: int = 224, resize: int = 248) -> Architecture:
    """`size`, `resize`: see `Preprocessing`."""
    family, preprocessing = "swinv2" if config.v2 else "swin", Preprocessing(size, resize, "bicubic")
    whole = math.lcm(*(PATCH * 2**stage * window for stage, window in enumerate(config.windows)))
    return Architecture(family, config, Swin, stages, "patch_embed/proj/kernel", preprocessing, window_pixels=whole)


_SMALL, _LARGE = (2, 2, 6, 2), (2, 2, 18, 2)
_SHAPES = {"tiny": (_SMALL, 96), "small": (_LARGE, 96), "base": (_LARGE, 128), "large": (_LARGE, 192)}


def _config(size: str, windows: tuple[int, int, int, int], v2: bool = False) -> Config:
    depths, width = _SHAPES[size]
    heads = width // 32
    return Config(width, depths, (heads, 2 * heads, 4 * heads, 8 * heads), windows, v2)


ARCHITECTURES = {f"swin_{size}_patch4_window7_224": architecture(_config(size, (7, 7, 7, 7))) for size in _SHAPES}
ARCHITECTURES |= {
    f"swin_{size}_patch4_window12_384": architecture(_config(size, (12, 12, 12, 12)), 384, 384) for size in ("base", "large")
}
# Microsoft trained window 16 at 256 pixels, where the last map is of 8.
ARCHITECTURES |= {
    f"swinv2_{size}_window{window}_256": architecture(_config(size, (window, window, window, 8), True), 256, 284)
    for size in ("tiny", "small", "base")
    for window in (8, 16)
}
