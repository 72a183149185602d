"""ResNet (He et al., 2016) in torchvision's form (v1.5: the stride of a bottleneck is in its 3x3) and names."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxft import ops
from jaxft.models.architecture import Architecture
from jaxft.models.layers import BatchNorm, Conv, DropPath, Head, Train, path_of, recomputed, rising_rates, running

WIDTHS = (64, 128, 256, 512)


@dataclasses.dataclass(frozen=True)
class Config:
    """A member of the family.

    Attributes:
      depths: blocks in each of the four stages.
      bottleneck: whether a block is 1x1, 3x3, 1x1 with four times the width at its end, or two 3x3.
      groups, group_width: of a bottleneck's 3x3 convolution: groups * group_width channels where a stage is 64 wide, and so on
        in proportion. More groups make a ResNeXt (Xie et al., 2017), wider ones a Wide ResNet (Zagoruyko & Komodakis, 2016).
    """

    depths: tuple[int, int, int, int]
    bottleneck: bool
    groups: int = 1
    group_width: int = 64


class Downsample(nn.Module):
    """The shortcut of a block that changes the map: 1x1 convolution and BatchNorm."""

    features: int
    strides: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        x = Conv(self.features, 1, self.strides, bias=False, dtype=self.dtype, name="0")(x)
        return BatchNorm(dtype=self.dtype, name="1")(x, train)


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
            layers = [(inner, 1, 1, 1), (inner, 3, self.strides, groups), (features, 1, 1, 1)]
        else:
            layers = [(self.width, 3, self.strides, 1), (self.width, 3, 1, 1)]
        shortcut = x
        for number, (width, size, strides, groups) in enumerate(layers, start=1):
            name = f"conv{number}"
            x = Conv(width, size, strides, size // 2, groups, bias=False, dtype=self.dtype, name=name)(x)
            x = BatchNorm(dtype=self.dtype, name=f"bn{number}")(x, train)
            if number < len(layers):
                x = nn.relu(x)
        if self.downsample:
            shortcut = Downsample(features, self.strides, self.dtype, name="downsample")(shortcut, train)
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
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, start: str = "") -> dict[str, jax.Array]:
        run, found = running(stages(self.config), start), {}
        rates = rising_rates(self.drop_path, self.config.depths)
        if "stem" in run:
            x = Conv(64, 7, 2, padding=3, bias=False, dtype=self.dtype, name="conv1")(x)
            x = nn.relu(BatchNorm(dtype=self.dtype, name="bn1")(x, train))
            x = found["stem"] = ops.max_pool(x, 3, 2, 1)
        for number, width in enumerate(WIDTHS, start=1):
            strides = 1 if number == 1 else 2
            if f"stage{number}" in run:
                stage = Stage(self.config, width, rates[number - 1], strides, self.dtype, self.remat, name=f"layer{number}")
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


def architecture(config: Config) -> Architecture:
    return Architecture("resnet", config, ResNet, stages, "conv1/kernel")


_DEPTHS = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}
ARCHITECTURES = {f"resnet{depth}": architecture(Config(*shape)) for depth, shape in _DEPTHS.items()}
ARCHITECTURES |= {
    name: architecture(Config(_DEPTHS[depth][0], True, groups, width))
    for name, depth, groups, width in (
        ("resnext50_32x4d", 50, 32, 4),
        ("resnext101_32x4d", 101, 32, 4),
        ("resnext101_32x8d", 101, 32, 8),
        ("resnext101_64x4d", 101, 64, 4),
        ("wide_resnet50_2", 50, 1, 128),
        ("wide_resnet101_2", 101, 1, 128),
    )
}
