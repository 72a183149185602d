"""ConvNeXt (Liu et al., 2022) and ConvNeXt V2 (Woo et al., 2023) in timm's form and names.

Any size from 32 pixels; what is no multiple of the strides is cut off at the right and the bottom, as torch does.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxft import ops
from jaxft.models.architecture import Architecture
from jaxft.models.heads import Head
from jaxft.models.layers import (
    Conv,
    Dense,
    DropPath,
    LayerNorm,
    Train,
    gelu,
    path_of,
    recomputed,
    rising_rates,
    round_channels,
    running,
)
from jaxft.ops.norm import at_least_f32
from jaxft.preprocessing import Preprocessing

EPSILON = 1e-6  # of every normalisation


@dataclasses.dataclass(frozen=True)
class Config:
    """A member of the family.

    Attributes:
      depths, widths: blocks in each of the four stages, and their channels.
      v2: whether blocks have global response normalisation instead of layer scale.
      stem: "patch" is one 4x4 convolution of stride 4; "overlap" two 3x3 of stride 2; "overlap_tiered" the same with half the
        channels between the two.
      conv_mlp: whether timm writes the two dense layers of a block as 1x1 convolutions. The mathematics and our own layout do
        not depend on it.
    """

    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]
    v2: bool = False
    stem: str = "patch"
    conv_mlp: bool = False


class GlobalResponseNorm(nn.Module):
    """Scales each channel of a map [B, H, W, C] by its norm over pixels, measured by the mean of all channels' norms.

    `scale` and `bias` [C] begin at zero, where it is the identity. Norms are in f32 or wider.
    """

    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.zeros, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        squares = jnp.square(at_least_f32(x)).sum((1, 2), keepdims=True)
        # GELU gives exact zeros far below zero. A channel of nothing else has the norm 0, whose gradient is 0, as torch has it.
        norm = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
        factor = 1 + scale * (norm / (norm.mean(-1, keepdims=True) + EPSILON))
        return x * factor.astype(self.dtype) + bias.astype(self.dtype)


class Mlp(nn.Module):
    """Dense to four times the width, GELU, dense."""

    v2: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        x = gelu(Dense(4 * width, dtype=self.dtype, name="fc1")(x))
        if self.v2:
            x = GlobalResponseNorm(self.dtype, name="grn")(x)
        return Dense(width, dtype=self.dtype, name="fc2")(x)


class Block(nn.Module):
    """Depthwise 7x7, LayerNorm and a small dense network on each pixel, added to the input."""

    v2: bool
    drop_path: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        width = x.shape[-1]
        branch = Conv(width, 7, padding=3, groups=width, dtype=self.dtype, name="conv_dw")(x)
        branch = LayerNorm(EPSILON, dtype=self.dtype, name="norm")(branch)
        branch = Mlp(self.v2, self.dtype, name="mlp")(branch)
        if not self.v2:
            branch = branch * self.param("gamma", nn.initializers.constant(1e-6), (width,)).astype(self.dtype)
        return x + DropPath(self.drop_path, of=path_of(self), name="drop_path")(branch, train)


class Stem(nn.Module):
    """Images -> maps of a quarter of their side."""

    config: Config
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = self.config.widths[0]
        if self.config.stem == "patch":
            layers = [Conv(width, 4, 4, dtype=self.dtype, name="0")]
        else:
            inner = round_channels(width // 2) if self.config.stem == "overlap_tiered" else width
            layers = [
                Conv(channels, 3, 2, padding=1, dtype=self.dtype, name=str(number))
                for number, channels in enumerate((inner, width))
            ]
        for layer in layers:
            x = layer(x)
        return LayerNorm(EPSILON, dtype=self.dtype, name=str(len(layers)))(x)


class Downsample(nn.Module):
    """LayerNorm, and a 2x2 convolution of stride 2."""

    features: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = LayerNorm(EPSILON, dtype=self.dtype, name="0")(x)
        return Conv(self.features, 2, 2, dtype=self.dtype, name="1")(x)


class Blocks(nn.Module):
    """The blocks of a stage."""

    v2: bool
    rates: tuple[float, ...]
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        make = recomputed(Block, self.remat)
        for number, rate in enumerate(self.rates):
            x = make(self.v2, rate, self.dtype, name=str(number))(x, train)
        return x


class Stage(nn.Module):
    """Blocks of one width; where it is not the stem's, a downsampling comes first."""

    config: Config
    width: int
    rates: tuple[float, ...]
    downsample: bool
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        if self.downsample:
            x = Downsample(self.width, self.dtype, name="downsample")(x)
        return Blocks(self.config.v2, self.rates, self.dtype, self.remat, name="blocks")(x, train)


class Stages(nn.Module):
    """The four stages; gives the map after each that is in `run`."""

    config: Config
    drop_path: float
    dtype: Any
    remat: frozenset[str]

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, run: list[str]) -> dict[str, jax.Array]:
        rates, maps = rising_rates(self.drop_path, self.config.depths), {}
        for number, width in enumerate(self.config.widths):
            if f"stage{number + 1}" in run:
                again = f"stage{number + 1}" in self.remat
                stage = Stage(self.config, width, rates[number], number > 0, self.dtype, again, name=str(number))
                x = maps[f"stage{number + 1}"] = stage(x, train)
        return maps


class Top(nn.Module):
    """Mean over pixels and LayerNorm, the neck, and the head. Gives (features, logits)."""

    num_classes: int
    head: str
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, run: list[str]) -> tuple[jax.Array, jax.Array]:
        if "neck" in run:
            x = LayerNorm(EPSILON, dtype=self.dtype, name="norm")(ops.global_avg_pool(x))
        return x, Head(self.num_classes, self.head, self.dropout, dtype=self.dtype, name="fc")(x, train)


class ConvNeXt(nn.Module):
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
            x = found["stem"] = Stem(self.config, self.dtype, name="stem")(x)
        found |= Stages(self.config, self.drop_path, self.dtype, self.remat, name="stages")(x, train, run)
        top = Top(self.num_classes, self.head, self.dropout, self.dtype, name="head")
        features, logits = top(found.get("stage4", x), train, run)
        if "neck" in run:
            found["neck"] = features
        return {**found, "features": features, "logits": logits}


def stages(config: Config) -> dict[str, tuple[str, ...]]:
    """Stage name -> globs; `neck` is the LayerNorm after pooling."""
    return {
        "stem": ("stem",),
        **{f"stage{number + 1}": (f"stages/{number}",) for number in range(4)},
        "neck": ("head/norm",),
        "head": ("head/fc",),
    }


def architecture(config: Config, resize: int = 256) -> Architecture:
    """`resize`: see `Preprocessing`."""
    preprocessing = Preprocessing(resize=resize, interpolation="bicubic")
    return Architecture("convnext", config, ConvNeXt, stages, "stem/0/kernel", preprocessing)


_SMALL, _LARGE = (2, 2, 6, 2), (3, 3, 27, 3)
#: Name -> depths, width of the first stage (each next one's is twice that), whether timm writes 1x1 convolutions.
_SHAPES = {
    "atto": (_SMALL, 40, True),
    "femto": (_SMALL, 48, True),
    "pico": (_SMALL, 64, True),
    "nano": ((2, 2, 8, 2), 80, True),
    "tiny": ((3, 3, 9, 3), 96, False),
    "small": (_LARGE, 96, False),
    "base": (_LARGE, 128, False),
    "large": (_LARGE, 192, False),
    "xlarge": (_LARGE, 256, False),
    "huge": (_LARGE, 352, False),
}
#: Other stems of the first version.
_STEMS = {"atto": "overlap_tiered", "femto": "overlap_tiered", "pico": "overlap_tiered", "nano": "overlap"}


def _config(size: str, v2: bool = False, stem: str = "patch") -> Config:
    depths, width, conv_mlp = _SHAPES[size]
    return Config(depths, (width, 2 * width, 4 * width, 8 * width), v2, stem, conv_mlp)


# timm's own weights of these three are measured with 95 percent of the image, all others here with 87.5.
_RESIZE = {"convnext_nano": 235, "convnext_nano_ols": 235, "convnext_pico_ols": 235}
_CONFIGS = {f"convnext_{size}": _config(size) for size in _SHAPES if size != "huge"}
_CONFIGS |= {f"convnext_{size}_ols": _config(size, stem=stem) for size, stem in _STEMS.items()}
_CONFIGS |= {f"convnextv2_{size}": _config(size, v2=True) for size in _SHAPES if size not in ("small", "xlarge")}
ARCHITECTURES = {name: architecture(config, _RESIZE.get(name, 256)) for name, config in _CONFIGS.items()}
