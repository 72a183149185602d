"""RegNet (Radosavovic et al., 2020), X and Y, named as timm names it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxft import ops
from jaxft.models.architecture import Architecture
from jaxft.models.heads import HeadFc
from jaxft.models.layers import (
    BatchNorm,
    Conv,
    DropPath,
    SqueezeExcite,
    Train,
    path_of,
    recomputed,
    rising_rates,
    round_channels,
    running,
)
from jaxft.preprocessing import Preprocessing

STEM = 32  # channels


@dataclasses.dataclass(frozen=True)
class Config:
    """A member of the family: the rule that generates its widths (section 3.3 of the paper), and what a block is like.

    Attributes:
      depth: number of blocks.
      initial, slope: block i of the first guess is `initial + slope * i` channels wide.
      step: widths are then moved to the nearest of `initial * step ** k`, and blocks of equal width are a stage.
      group: channels in each group of a 3x3 convolution; a stage is as wide as a whole number of groups.
      squeeze: whether a block has squeeze and excitation: RegNet-Y, not X.
      round_up: whether a stage may not become narrower than nine tenths for its groups: torchvision's rule. Otherwise the
        nearest whole number of groups counts, as in the authors' code and in timm.
    """

    depth: int
    initial: int
    slope: float
    step: float
    group: int
    squeeze: bool = False
    round_up: bool = False

    def stages(self) -> list[tuple[int, int, int]]:
        """(blocks, channels, channels in a group) of each stage."""
        depths: dict[int, int] = {}
        for block in range(self.depth):
            power = round(math.log(1 + self.slope * block / self.initial) / math.log(self.step))
            width = round(self.initial * self.step**power / 8) * 8
            depths[width] = depths.get(width, 0) + 1
        found = []
        for width, depth in depths.items():
            group = min(self.group, width)
            fitting = round_channels(width, group) if self.round_up else round(width / group) * group
            found.append((depth, fitting, group))
        return found


class ConvNorm(nn.Module):
    """A convolution and its BatchNorm."""

    features: int
    kernel_size: int
    strides: int = 1
    groups: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        size, padding = self.kernel_size, self.kernel_size // 2
        x = Conv(self.features, size, self.strides, padding, self.groups, bias=False, dtype=self.dtype, name="conv")(x)
        return BatchNorm(dtype=self.dtype, name="bn")(x, train)


class Block(nn.Module):
    """A residual block of one width: 1x1, grouped 3x3, squeeze and excitation to a quarter of what came in, 1x1."""

    features: int
    group: int
    strides: int
    squeeze: bool
    drop_path: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        width, groups, shortcut, channels = self.features, self.features // self.group, x, x.shape[-1]
        x = nn.relu(ConvNorm(width, 1, dtype=self.dtype, name="conv1")(x, train))
        x = nn.relu(ConvNorm(width, 3, self.strides, groups, dtype=self.dtype, name="conv2")(x, train))
        if self.squeeze:
            x = SqueezeExcite(round(channels / 4), dtype=self.dtype, name="se")(x)
        x = ConvNorm(width, 1, dtype=self.dtype, name="conv3")(x, train)
        if self.strides > 1 or channels != width:
            shortcut = ConvNorm(width, 1, self.strides, dtype=self.dtype, name="downsample")(shortcut, train)
        return nn.relu(DropPath(self.drop_path, of=path_of(self), name="drop_path")(x, train) + shortcut)


class Stage(nn.Module):
    """Blocks of one width; the first halves the map."""

    features: int
    group: int
    squeeze: bool
    rates: tuple[float, ...]
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        make = recomputed(Block, self.remat)
        for number, rate in enumerate(self.rates, start=1):
            strides = 2 if number == 1 else 1
            x = make(self.features, self.group, strides, self.squeeze, rate, self.dtype, name=f"b{number}")(x, train)
        return x


class RegNet(nn.Module):
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
        shapes = self.config.stages()
        rates = rising_rates(self.drop_path, [depth for depth, _, _ in shapes])
        if "stem" in run:
            x = found["stem"] = nn.relu(ConvNorm(STEM, 3, 2, dtype=self.dtype, name="stem")(x, train))
        for number, (_, width, group) in enumerate(shapes, start=1):
            if f"stage{number}" in run:
                own, again = rates[number - 1], f"stage{number}" in self.remat
                stage = Stage(width, group, self.config.squeeze, own, self.dtype, again, name=f"s{number}")
                x = found[f"stage{number}"] = stage(x, train)
        features = x if start == "head" else ops.global_avg_pool(x)
        logits = HeadFc(self.num_classes, self.head, self.dropout, self.dtype, name="head")(features, train)
        return {**found, "features": features, "logits": logits}


def stages(config: Config) -> dict[str, tuple[str, ...]]:
    """Stage name -> globs."""
    numbers = range(1, len(config.stages()) + 1)
    return {"stem": ("stem",), **{f"stage{number}": (f"s{number}",) for number in numbers}, "head": ("head/fc",)}


#: The authors' (pycls), torchvision's for the weights it trained itself, and that of the large ones' (SWAG, SEER).
_PYCLS, _TORCHVISION = Preprocessing(interpolation="bicubic"), Preprocessing(resize=232)
_LARGE = Preprocessing(384, 384, "bicubic")


def architecture(config: Config, preprocessing: Preprocessing = _PYCLS) -> Architecture:
    return Architecture("regnet", config, RegNet, stages, "stem/conv/kernel", preprocessing)


#: depth, initial, slope, step and group by hundreds of millions of multiplications.
_X = {
    "002": (13, 24, 36.44, 2.49, 8),
    "004": (22, 24, 24.48, 2.54, 16),
    "006": (16, 48, 36.97, 2.24, 24),
    "008": (16, 56, 35.73, 2.28, 16),
    "016": (18, 80, 34.01, 2.25, 24),
    "032": (25, 88, 26.31, 2.25, 48),
    "040": (23, 96, 38.65, 2.43, 40),
    "064": (17, 184, 60.83, 2.07, 56),
    "080": (23, 80, 49.56, 2.88, 120),
    "120": (19, 168, 73.36, 2.37, 112),
    "160": (22, 216, 55.59, 2.1, 128),
    "320": (23, 320, 69.86, 2.0, 168),
}
_Y = {
    "002": (13, 24, 36.44, 2.49, 8),
    "004": (16, 48, 27.89, 2.09, 8),
    "006": (15, 48, 32.54, 2.32, 16),
    "008": (14, 56, 38.84, 2.4, 16),
    "016": (27, 48, 20.71, 2.65, 24),
    "032": (21, 80, 42.63, 2.66, 24),
    "040": (22, 96, 31.41, 2.24, 64),
    "064": (25, 112, 33.22, 2.27, 72),
    "080": (17, 192, 76.82, 2.19, 56),
    "120": (19, 168, 73.36, 2.37, 112),
    "160": (18, 200, 106.23, 2.48, 112),
    "320": (20, 232, 115.89, 2.53, 232),
    "640": (20, 352, 147.48, 2.4, 328),
    "1280": (27, 456, 160.83, 2.52, 264),
    "2560": (27, 640, 230.83, 2.53, 373),
}
ARCHITECTURES = {f"regnetx_{size}": architecture(Config(*rule)) for size, rule in _X.items()}
ARCHITECTURES |= {
    f"regnety_{size}": architecture(Config(*rule, squeeze=True), _LARGE if int(size) > 320 else _PYCLS)
    for size, rule in _Y.items()
}
# Where torchvision's rounding comes to other widths, the network is another one.
ARCHITECTURES |= {
    "regnetx_004_tv": architecture(Config(*_X["004"], round_up=True), _TORCHVISION),
    "regnety_008_tv": architecture(Config(*_Y["008"], squeeze=True, round_up=True), _TORCHVISION),
    "regnety_080_tv": architecture(Config(*_Y["080"], squeeze=True, round_up=True), _TORCHVISION),
}
