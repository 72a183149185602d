"""EfficientNet-Lite (Tan & Le, 2019, and the TPU authors' Lite variant), named as timm names it.

Lite has ReLU6 and no squeeze-and-excitation, and neither its stem nor its head is scaled with the width. It was born in
TensorFlow: padding is SAME.
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
from jaxft.models.layers import BatchNorm, Conv, DropPath, Head, Train, path_of, recomputed, relu6, round_channels, running
from jaxft.preprocessing import Preprocessing

#: (blocks, kernel, stride, expansion, output channels) of each stage at width and depth 1.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
#: The stem's and the head's convolutions.
STEM, TOP = 32, 1280
EPSILON = 1e-3  # of every BatchNorm


@dataclasses.dataclass(frozen=True)
class Config:
    """A member of the family: factors of `STAGES`."""

    width: float
    depth: float

    def stages(self) -> list[tuple[int, int, int, int, int]]:
        """`STAGES` scaled: widths rounded to multiples of 8, depths up, the first and the last stage not deepened."""
        found = []
        for number, (blocks, kernel, strides, expansion, channels) in enumerate(STAGES):
            inner = 0 < number < len(STAGES) - 1
            deep = math.ceil(blocks * self.depth) if inner else blocks
            found.append((deep, kernel, strides, expansion, round_channels(channels * self.width)))
        return found


class Block(nn.Module):
    """Inverted residual: 1x1 expansion (where there is one), depthwise, 1x1 projection without activation."""

    features: int
    kernel_size: int
    strides: int
    expansion: int
    drop_path: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        shortcut, channels = x, x.shape[-1] * self.expansion
        # timm numbers the normalisations of a block from 1, whether or not it expands.
        names = iter(("bn1", "bn2", "bn3"))

        def norm(x: jax.Array) -> jax.Array:
            return BatchNorm(epsilon=EPSILON, dtype=self.dtype, name=next(names))(x, train)

        if self.expansion > 1:
            x = relu6(norm(Conv(channels, 1, bias=False, dtype=self.dtype, name="conv_pw")(x)))
        depthwise = Conv(
            channels, self.kernel_size, self.strides, "SAME", groups=channels, bias=False, dtype=self.dtype, name="conv_dw"
        )
        x = relu6(norm(depthwise(x)))
        last = "conv_pwl" if self.expansion > 1 else "conv_pw"
        x = norm(Conv(self.features, 1, bias=False, dtype=self.dtype, name=last)(x))
        if self.strides == 1 and shortcut.shape == x.shape:
            x = shortcut + DropPath(self.drop_path, of=path_of(self), name="drop_path")(x, train)
        return x


class Stage(nn.Module):
    """Blocks of one shape; the first may stride."""

    config: tuple[int, int, int, int, int]
    rates: tuple[float, ...]
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        make = recomputed(Block, self.remat)
        blocks, kernel, strides, expansion, channels = self.config
        for number in range(blocks):
            own = strides if number == 0 else 1
            x = make(channels, kernel, own, expansion, self.rates[number], self.dtype, name=str(number))(x, train)
        return x


class Blocks(nn.Module):
    """The seven stages; gives the map after each that is in `run`."""

    config: Config
    drop_path: float
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, run: list[str]) -> dict[str, jax.Array]:
        configs = self.config.stages()
        total, done, maps = sum(config[0] for config in configs), 0, {}
        for number, config in enumerate(configs):
            rates = tuple(self.drop_path * (done + i) / total for i in range(config[0]))
            done += config[0]
            if f"stage{number + 1}" in run:
                x = Stage(config, rates, self.dtype, self.remat, name=str(number))(x, train)
                maps[f"stage{number + 1}"] = x
        return maps


class EfficientNetLite(nn.Module):
    """Images [B, H, W, C], or what the stage `start` takes, -> outputs of all stages from there."""

    config: Config
    num_classes: int
    head: str = "linear"
    dropout: float = 0.2
    drop_path: float = 0.0
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, start: str = "") -> dict[str, jax.Array]:
        run, found = running(stages(self.config), start), {}
        if "stem" in run:
            x = Conv(STEM, 3, 2, "SAME", bias=False, dtype=self.dtype, name="conv_stem")(x)
            x = found["stem"] = relu6(BatchNorm(epsilon=EPSILON, dtype=self.dtype, name="bn1")(x, train))
        found |= Blocks(self.config, self.drop_path, self.dtype, self.remat, name="blocks")(x, train, run)
        if "neck" in run:
            x = Conv(TOP, 1, bias=False, dtype=self.dtype, name="conv_head")(found.get(f"stage{len(STAGES)}", x))
            x = found["neck"] = relu6(BatchNorm(epsilon=EPSILON, dtype=self.dtype, name="bn2")(x, train))
        features = x if start == "head" else ops.global_avg_pool(x)
        logits = Head(self.num_classes, self.head, self.dropout, dtype=self.dtype, name="classifier")(features, train)
        return {**found, "features": features, "logits": logits}


def stages(config: Config) -> dict[str, tuple[str, ...]]:
    """Stage name -> globs; `neck` is the last 1x1 convolution."""
    return {
        "stem": ("conv_stem", "bn1"),
        **{f"stage{number + 1}": (f"blocks/{number}",) for number in range(len(STAGES))},
        "neck": ("conv_head", "bn2"),
        "head": ("classifier",),
    }


def _preprocessing(size: int) -> Preprocessing:
    """The authors' centre crop, and pixels (x - 127) / 128."""
    mean, std = (127 / 255,) * 3, (128 / 255,) * 3
    return Preprocessing(size, round(size / 0.875), "bicubic", mean, std)


def architecture(config: Config, size: int) -> Architecture:
    return Architecture("efficientnet_lite", config, EfficientNetLite, stages, "conv_stem/kernel", _preprocessing(size))


_SCALES = {0: (1.0, 1.0, 224), 1: (1.0, 1.1, 240), 2: (1.1, 1.2, 260)}
ARCHITECTURES = {
    f"efficientnet_lite{number}": architecture(Config(width, depth), size) for number, (width, depth, size) in _SCALES.items()
}
