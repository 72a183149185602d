"""ResNet v2 (He et al., 2016, "Identity Mappings") as Big Transfer has it (Kolesnikov et al., 2020), named as timm names it.

Normalisations stand before convolutions and are over groups of channels; kernels are standardised (Qiao et al., 2019). Nothing
depends on the batch, and there are no statistics.

Keras' have plain convolutions and BatchNorm, and the stride in the last block of a stage; they are called `keras_`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxft import ops
from jaxft.models.architecture import Architecture
from jaxft.models.heads import HeadFc
from jaxft.models.layers import (
    KERAS_NORM,
    Conv,
    DropPath,
    GroupNorm,
    Train,
    he_out,
    path_of,
    recomputed,
    rising_rates,
    round_channels,
    running,
)
from jaxft.ops.norm import at_least_f32
from jaxft.preprocessing import Preprocessing

EPSILON = 1e-8  # of the standardised kernels


@dataclasses.dataclass(frozen=True)
class Config:
    """A member of the family.

    Attributes:
      depths, widths: blocks in each stage, and channels at the end of a block. The stem has a quarter of the first stage's.
      keras: whether it has Keras' form: BatchNorm for GroupNorm, plain kernels, biases where no normalisation follows, and the
        stride in the last block of every stage but the last, rather than in the first of every stage but the first.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    keras: bool = False

    def strides(self, stage: int) -> tuple[int, ...]:
        """Of the blocks of a stage, counted from 0."""
        strided, ones = stage < len(self.depths) - 1 if self.keras else stage > 0, (1,) * (self.depths[stage] - 1)
        last = 2 if strided else 1
        return (*ones, last) if self.keras else (last, *ones)

    def conv(self, features: int, size: int, strides: int, dtype: Any, name: str, bias: bool = True) -> nn.Module:
        """`bias`: in Keras' form."""
        if self.keras:
            return Conv(features, size, strides, size // 2, bias=bias, dtype=dtype, name=name)
        return StdConv(features, size, strides, dtype, name=name)

    def norm_act(self, x: jax.Array, train: Train, dtype: Any, name: str) -> jax.Array:
        """Normalisation and ReLU."""
        return nn.relu(KERAS_NORM(dtype, name)(x, train) if self.keras else GroupNorm(dtype=dtype, name=name)(x))


class StdConv(nn.Module):
    """A convolution without bias whose kernel is standardised for every output channel: mean 0, (biased) variance 1."""

    features: int
    kernel_size: int
    strides: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", he_out, (self.kernel_size, self.kernel_size, x.shape[-1], self.features))
        kernel = at_least_f32(kernel)
        kernel = kernel - kernel.mean((0, 1, 2))
        kernel = kernel * jax.lax.rsqrt(jnp.square(kernel).mean((0, 1, 2)) + EPSILON)
        padding = self.kernel_size // 2
        return ops.conv(x.astype(self.dtype), kernel.astype(self.dtype), strides=self.strides, padding=padding)


class Downsample(nn.Module):
    """The shortcut of a block that changes the map, which is `conv` alone."""

    config: Config
    features: int
    strides: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return self.config.conv(self.features, 1, self.strides, self.dtype, "conv")(x)


class Stem(nn.Module):
    """A 7x7 convolution and pooling, both of stride 2. Zeros, not nothing, surround the map that is pooled."""

    config: Config
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.config.conv(self.config.widths[0] // 4, 7, 2, self.dtype, "conv")(x)
        return ops.max_pool(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), 3, 2)


class Block(nn.Module):
    """A residual bottleneck, 1x1, 3x3, 1x1, each after normalisation and ReLU; the first of a stage projects its shortcut.

    Where another strides, its shortcut is every other pixel.
    """

    config: Config
    features: int
    strides: int
    project: bool
    drop_path: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        inner = round_channels(self.features / 4)
        shortcut = x if self.project else x[:, :: self.strides, :: self.strides]
        layers = ((inner, 1, 1), (inner, 3, self.strides), (self.features, 1, 1))
        for number, (width, size, strides) in enumerate(layers, start=1):
            x = self.config.norm_act(x, train, self.dtype, f"norm{number}")
            if number == 1 and self.project:
                shortcut = Downsample(self.config, self.features, self.strides, self.dtype, name="downsample")(x)
            x = self.config.conv(width, size, strides, self.dtype, f"conv{number}", bias=number == len(layers))(x)
        return shortcut + DropPath(self.drop_path, of=path_of(self), name="drop_path")(x, train)


class Blocks(nn.Module):
    """Blocks of one width."""

    config: Config
    features: int
    strides: tuple[int, ...]
    rates: tuple[float, ...]
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        make = recomputed(Block, self.remat)
        for number, (strides, rate) in enumerate(zip(self.strides, self.rates, strict=True)):
            x = make(self.config, self.features, strides, number == 0, rate, self.dtype, name=str(number))(x, train)
        return x


class Stage(nn.Module):
    """timm's stage, which is `blocks` alone."""

    config: Config
    features: int
    strides: tuple[int, ...]
    rates: tuple[float, ...]
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        blocks = Blocks(self.config, self.features, self.strides, self.rates, self.dtype, self.remat, name="blocks")
        return blocks(x, train)


class Stages(nn.Module):
    """All stages; gives the map after each that is in `run`."""

    config: Config
    drop_path: float
    dtype: Any
    remat: frozenset[str]

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, run: list[str]) -> dict[str, jax.Array]:
        maps, rates = {}, rising_rates(self.drop_path, self.config.depths)
        for number, width in enumerate(self.config.widths):
            if f"stage{number + 1}" in run:
                strides, again = self.config.strides(number), f"stage{number + 1}" in self.remat
                stage = Stage(self.config, width, strides, rates[number], self.dtype, again, name=str(number))
                x = maps[f"stage{number + 1}"] = stage(x, train)
        return maps


class ResNetV2(nn.Module):
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
        if "neck" in run:
            x = found.get(f"stage{len(self.config.widths)}", x)
            x = found["neck"] = self.config.norm_act(x, train, self.dtype, "norm")
        features = x if start == "head" else ops.global_avg_pool(x)
        logits = HeadFc(self.num_classes, self.head, self.dropout, self.dtype, name="head")(features, train)
        return {**found, "features": features, "logits": logits}


def stages(config: Config) -> dict[str, tuple[str, ...]]:
    """Stage name -> globs; `neck` is the last normalisation."""
    return {
        "stem": ("stem",),
        **{f"stage{number + 1}": (f"stages/{number}",) for number in range(len(config.widths))},
        "neck": ("norm",),
        "head": ("head/fc",),
    }


def _preprocessing(size: int, resize: int, interpolation: str) -> Preprocessing:
    return Preprocessing(size, resize, interpolation, (0.5,) * 3, (0.5,) * 3)


def architecture(config: Config, preprocessing: Preprocessing) -> Architecture:
    return Architecture("resnetv2", config, ResNetV2, stages, "stem/conv/kernel", preprocessing)


_DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_SMALL, _LARGE = _preprocessing(224, 256, "bicubic"), _preprocessing(448, 448, "bilinear")
#: Those of 224 pixels have been distilled, or taught those (Beyer et al., 2022).
ARCHITECTURES = {
    f"resnetv2_{depth}x{factor}_bit": architecture(
        Config(_DEPTHS[depth], tuple(factor * width for width in (256, 512, 1024, 2048))), preprocessing
    )
    for depth, factor, preprocessing in (
        (50, 1, _SMALL),
        (50, 3, _LARGE),
        (101, 1, _LARGE),
        (101, 3, _LARGE),
        (152, 2, _SMALL),
        (152, 4, _preprocessing(480, 480, "bilinear")),
    )
}
ARCHITECTURES |= {
    f"keras_resnet{depth}v2": architecture(
        Config(_DEPTHS[depth], (256, 512, 1024, 2048), keras=True), _preprocessing(224, 256, "bilinear")
    )
    for depth in _DEPTHS
}
