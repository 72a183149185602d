"""ResNet (He et al., 2016) and what grew out of it, in torchvision's form (v1.5: the stride of a bottleneck is in its 3x3) and
names, and in timm's where torchvision has no such network.

Keras' have the stride in the first 1x1, biases, and its own BatchNorm; they are called `keras_`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxft import ops
from jaxft.models.architecture import Architecture
from jaxft.models.heads import Head
from jaxft.models.layers import (
    KERAS_NORM,
    TORCH_NORM,
    BatchNorm,
    Conv,
    DropPath,
    Norm,
    SqueezeExcite,
    Train,
    path_of,
    recomputed,
    rising_rates,
    round_channels,
    running,
)
from jaxft.preprocessing import CAFFE, Preprocessing

WIDTHS = (64, 128, 256, 512)


@dataclasses.dataclass(frozen=True)
class Config:
    """A member of the family.

    Attributes:
      depths: blocks in each of the four stages.
      bottleneck: whether a block is 1x1, 3x3, 1x1 with four times the width at its end, or two 3x3.
      groups, group_width: of a bottleneck's 3x3 convolution: groups * group_width channels where a stage is 64 wide, and so on
        in proportion. More groups make a ResNeXt (Xie et al., 2017), wider ones a Wide ResNet (Zagoruyko & Komodakis, 2016).
      stem: channels of the 3x3 convolutions that stand in place of the 7x7 one, the first of stride 2; () for the 7x7.
      pooled_shortcut: whether a shortcut halves its map by averages before a 1x1 convolution without stride, rather than by
        that convolution's stride. With a stem of (32, 32, 64) this is ResNet-D (He et al., 2019).
      squeeze: whether every block ends in squeeze and excitation (Hu et al., 2018), to a sixteenth of its channels.
      early_stride: whether the stride of a bottleneck is in its first 1x1, as in the paper.
      bias: whether convolutions have one.
      norm: every BatchNorm.
    """

    depths: tuple[int, int, int, int]
    bottleneck: bool
    groups: int = 1
    group_width: int = 64
    stem: tuple[int, ...] = ()
    pooled_shortcut: bool = False
    squeeze: bool = False
    early_stride: bool = False
    bias: bool = False
    norm: Norm = TORCH_NORM


class Stem(nn.Module):
    """3x3 convolutions, the first of stride 2, with BatchNorm and ReLU between them: numbered as timm's sequence of all."""

    widths: tuple[int, ...]
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        for number, width in enumerate(self.widths):
            if number:
                x = nn.relu(BatchNorm(dtype=self.dtype, name=str(3 * number - 2))(x, train))
            strides = 1 if number else 2
            x = Conv(width, 3, strides, padding=1, bias=False, dtype=self.dtype, name=str(3 * number))(x)
        return x


class Downsample(nn.Module):
    """The shortcut of a block that changes the map: 1x1 convolution and BatchNorm, where it is pooled after a 2x2 average."""

    config: Config
    features: int
    strides: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        names, strides = ("0", "1"), self.strides
        if self.config.pooled_shortcut:
            names, strides = ("1", "2"), 1  # timm's "0" is the pooling
            if self.strides > 1:
                x = ops.avg_pool(x, self.strides, count_include_pad=False, ceil_mode=True)
        x = Conv(self.features, 1, strides, bias=self.config.bias, dtype=self.dtype, name=names[0])(x)
        return self.config.norm(self.dtype, names[1])(x, train)


class Block(nn.Module):
    """A residual block: two 3x3 convolutions, or a bottleneck."""

    config: Config
    width: int
    strides: int
    downsample: bool
    drop_path: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        features, groups = features_of(self.config, self.width), self.config.groups
        if self.config.bottleneck:
            inner = self.width * self.config.group_width // 64 * groups
            early, late = (self.strides, 1) if self.config.early_stride else (1, self.strides)
            layers = [(inner, 1, early, 1), (inner, 3, late, groups), (features, 1, 1, 1)]
        else:
            layers = [(self.width, 3, self.strides, 1), (self.width, 3, 1, 1)]
        shortcut = x
        for number, (width, size, strides, groups) in enumerate(layers, start=1):
            name = f"conv{number}"
            x = Conv(width, size, strides, size // 2, groups, bias=self.config.bias, dtype=self.dtype, name=name)(x)
            x = self.config.norm(self.dtype, f"bn{number}")(x, train)
            if number < len(layers):
                x = nn.relu(x)
        if self.config.squeeze:
            x = SqueezeExcite(round_channels(features / 16), dtype=self.dtype, name="se")(x)
        if self.downsample:
            shortcut = Downsample(self.config, features, self.strides, self.dtype, name="downsample")(shortcut, train)
        x = DropPath(self.drop_path, of=path_of(self), name="drop_path")(x, train)
        return nn.relu(x + shortcut)


class Stage(nn.Module):
    """Blocks of one width; the first may stride."""

    config: Config
    width: int
    rates: tuple[float, ...]
    strides: int
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        make = recomputed(Block, self.remat)
        for number, rate in enumerate(self.rates):
            strides = self.strides if number == 0 else 1
            changes = strides != 1 or x.shape[-1] != features_of(self.config, self.width)
            x = make(self.config, self.width, strides, changes, rate, self.dtype, name=str(number))(x, train)
        return x


class ResNet(nn.Module):
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
        rates = rising_rates(self.drop_path, self.config.depths)
        if "stem" in run:
            if self.config.stem:
                x = Stem(self.config.stem, self.dtype, name="conv1")(x, train)
            else:
                x = Conv(64, 7, 2, padding=3, bias=self.config.bias, dtype=self.dtype, name="conv1")(x)
            x = nn.relu(self.config.norm(self.dtype, "bn1")(x, train))
            x = found["stem"] = ops.max_pool(x, 3, 2, 1)
        for number, width in enumerate(WIDTHS, start=1):
            strides = 1 if number == 1 else 2
            if f"stage{number}" in run:
                again = f"stage{number}" in self.remat
                stage = Stage(self.config, width, rates[number - 1], strides, self.dtype, again, name=f"layer{number}")
                x = found[f"stage{number}"] = stage(x, train)
        features = x if start == "head" else ops.global_avg_pool(x)
        logits = Head(self.num_classes, self.head, self.dropout, dtype=self.dtype, name="fc")(features, train)
        return {**found, "features": features, "logits": logits}


def features_of(config: Config, width: int) -> int:
    """Channels at the end of a block of a stage."""
    return width * 4 if config.bottleneck else width


def stages(config: Config) -> dict[str, tuple[str, ...]]:
    """Stage name -> globs."""
    return {
        "stem": ("conv1", "bn1"),
        **{f"stage{number}": (f"layer{number}",) for number in range(1, 5)},
        "head": ("fc",),
    }


def architecture(config: Config, preprocessing: Preprocessing | None = None) -> Architecture:
    first_conv = "conv1/0/kernel" if config.stem else "conv1/kernel"
    return Architecture("resnet", config, ResNet, stages, first_conv, preprocessing or Preprocessing())


_DEEP, _TIERED, _PLAIN = (32, 32, 64), (24, 32, 64), (1, 64)
_DEPTHS = {
    10: ((1, 1, 1, 1), False),
    14: ((1, 1, 1, 1), True),
    18: ((2, 2, 2, 2), False),
    26: ((2, 2, 2, 2), True),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
    200: ((3, 24, 36, 3), True),
}
ARCHITECTURES = {f"resnet{depth}": architecture(Config(*_DEPTHS[depth])) for depth in (18, 34, 50, 101, 152)}
ARCHITECTURES |= {
    name: architecture(Config(*_DEPTHS[depth], groups, width))
    for name, depth, groups, width in (
        ("resnext50_32x4d", 50, 32, 4),
        ("resnext101_32x4d", 101, 32, 4),
        ("resnext101_32x8d", 101, 32, 8),
        ("resnext101_32x16d", 101, 32, 16),
        ("resnext101_32x32d", 101, 32, 32),
        ("resnext101_64x4d", 101, 64, 4),
        ("wide_resnet50_2", 50, 1, 128),
        ("wide_resnet101_2", 101, 1, 128),
    )
}


def _timm(size: int = 224, crop: float = 0.875) -> Preprocessing:
    return Preprocessing(size, math.floor(size / crop), "bicubic")


#: timm's own: D with a deep stem and pooled shortcuts, T with a tiered stem besides.
ARCHITECTURES |= {
    name: architecture(Config(*_DEPTHS[depth], *groups, stem=stem, pooled_shortcut=bool(stem), squeeze=squeeze), images)
    for name, depth, groups, stem, squeeze, images in (
        ("resnet10t", 10, _PLAIN, _TIERED, False, _timm(176)),
        ("resnet14t", 14, _PLAIN, _TIERED, False, _timm(176)),
        ("resnet18d", 18, _PLAIN, _DEEP, False, _timm()),
        ("resnet26", 26, _PLAIN, (), False, _timm()),
        ("resnet26d", 26, _PLAIN, _DEEP, False, _timm()),
        ("resnet26t", 26, _PLAIN, _TIERED, False, _timm(256, 0.94)),
        ("resnet34d", 34, _PLAIN, _DEEP, False, _timm()),
        ("resnet50d", 50, _PLAIN, _DEEP, False, _timm()),
        ("resnet101d", 101, _PLAIN, _DEEP, False, _timm(256, 0.95)),
        ("resnet152d", 152, _PLAIN, _DEEP, False, _timm(256, 0.95)),
        ("resnet200d", 200, _PLAIN, _DEEP, False, _timm(256, 0.95)),
        ("resnext50d_32x4d", 50, (32, 4), _DEEP, False, _timm()),
        ("seresnet50", 50, _PLAIN, (), True, _timm(224, 0.95)),
        ("seresnet152d", 152, _PLAIN, _DEEP, True, _timm(256, 0.95)),
        ("seresnext26d_32x4d", 26, (32, 4), _DEEP, True, _timm()),
        ("seresnext26t_32x4d", 26, (32, 4), _TIERED, True, _timm()),
        ("seresnext50_32x4d", 50, (32, 4), (), True, _timm()),
        ("seresnext101_32x4d", 101, (32, 4), (), True, _timm()),
        ("seresnext101_32x8d", 101, (32, 8), (), True, _timm(224, 0.95)),
        ("seresnext101_64x4d", 101, (64, 4), (), True, _timm()),
        ("seresnext101d_32x8d", 101, (32, 8), _DEEP, True, _timm(224, 0.95)),
    )
}

#: Its files want pixels minus a mean, of Caffe's; that it reads them as blue, green, red is seen to in the name table.
ARCHITECTURES |= {
    f"keras_resnet{depth}": architecture(Config(*_DEPTHS[depth], early_stride=True, bias=True, norm=KERAS_NORM), CAFFE)
    for depth in (50, 101, 152)
}
