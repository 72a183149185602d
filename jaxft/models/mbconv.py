"""Networks of inverted residuals (Sandler et al., 2018): what MobileNet-v2 and v3, MNASNet and EfficientNet have in common.

Named as timm names them. A family is a way to write a `Config`; all run through the one module here.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxft import ops
from jaxft.models.architecture import Architecture
from jaxft.models.heads import Head
from jaxft.models.layers import (
    BatchNorm,
    Conv,
    DropPath,
    SqueezeExcite,
    Train,
    path_of,
    recomputed,
    relu6,
    round_channels,
    running,
)
from jaxft.preprocessing import Preprocessing


def hard_sigmoid(x: jax.Array) -> jax.Array:
    """A sigmoid of three straight lines (Howard et al., 2019)."""
    return relu6(x + 3) / 6


def hard_swish(x: jax.Array) -> jax.Array:
    return x * hard_sigmoid(x)


FUNCTIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "relu6": relu6,
    "silu": nn.silu,
    "hard_swish": hard_swish,
    "sigmoid": nn.sigmoid,
    "hard_sigmoid": hard_sigmoid,
}

#: The convolutions of each kind of block in their order. "conv_dw" is depthwise, "conv_pw" and "conv_pwl" are 1x1; the stride
#: is in the other one.
LAYERS = {
    "inverted": ("conv_pw", "conv_dw", "conv_pwl"),  # expand, depthwise, project
    "separable": ("conv_dw", "conv_pw"),  # an inverted residual that does not expand
    "fused": ("conv_exp", "conv_pwl"),  # expands with a full convolution in place of the first two
    "plain": ("conv",),
}


@dataclasses.dataclass(frozen=True)
class Block:
    """One block. Where it keeps the shape of its input, it is added to it.

    Attributes:
      kind: of `LAYERS`. The last convolution has no activation, unless it is the only one.
      kernel, strides: of the convolution that is not "conv_pw" or "conv_pwl".
      inner: channels before the last convolution.
      channels: after it.
      squeeze: inner channels of a squeeze-and-excitation before the last convolution; 0: there is none.
      activation: of `FUNCTIONS`.
    """

    kind: str
    kernel: int
    strides: int
    inner: int
    channels: int
    squeeze: int
    activation: str


@dataclasses.dataclass(frozen=True)
class Config:
    """A member of a family.

    Attributes:
      stages: the blocks of each stage.
      stem, neck: channels of the first and of the last convolution.
      activation: after these two, of `FUNCTIONS`.
      pooled_neck: whether the last convolution comes after the global pooling, with a bias in place of a normalisation.
      squeeze: activation and gate of squeeze-and-excitation, of `FUNCTIONS`.
      same: whether padding is TensorFlow's SAME; else it is half the kernel, as in torch.
      epsilon, momentum, unbiased: of every BatchNorm.
      dropout: before the head, where none is asked for.
    """

    stages: tuple[tuple[Block, ...], ...]
    stem: int
    neck: int
    activation: str
    pooled_neck: bool = False
    squeeze: tuple[str, str] = ("silu", "sigmoid")
    same: bool = False
    epsilon: float = 1e-5
    momentum: float = 0.1
    unbiased: bool = True
    dropout: float = 0.2

    def padding(self, kernel: int) -> int | str:
        return "SAME" if self.same else kernel // 2

    def norm(self, dtype: Any) -> Callable[..., BatchNorm]:
        return functools.partial(BatchNorm, self.momentum, self.epsilon, self.unbiased, dtype=dtype)


class Row(NamedTuple):
    """Blocks of one form at width and depth 1; only the first of them has the stride. See `Block`.

    Attributes:
      expansion: inner channels for each of the input.
      squeeze: whether there is squeeze-and-excitation.
      activation: "" is the network's.
    """

    kind: str
    blocks: int
    kernel: int
    strides: int
    expansion: float
    channels: int
    squeeze: bool = False
    activation: str = ""


def scaled(
    stages: Sequence[Sequence[Row]],
    stem: int,
    activation: str,
    width: float = 1.0,
    depth: float | Sequence[float] = 1.0,
    squeeze_inner: bool = False,
    least: float = 0.9,
) -> tuple[tuple[Block, ...], ...]:
    """The blocks of a network.

    Args:
      stages: the rows of each stage.
      stem: channels of the first stage's input.
      activation: of rows that name none.
      width, depth: factors of channels and of numbers of blocks, which are rounded up; the depth may be one for each stage.
      squeeze_inner: whether squeezing leaves a quarter of the inner channels, rounded as others are, or of the input's.
      least: see `round_channels`.
    """
    depths = [depth] * len(stages) if isinstance(depth, int | float) else depth
    found, inputs = [], stem
    for rows, factor in zip(stages, depths, strict=True):
        stage: list[Block] = []
        for row in rows:
            channels = round_channels(row.channels * width, least=least)
            for index in range(math.ceil(row.blocks * factor)):
                inner = channels if row.kind == "plain" else round_channels(inputs * row.expansion)
                squeezed = round_channels(inner / 4) if squeeze_inner else inputs // 4
                strides = row.strides if index == 0 else 1
                squeeze, own = squeezed if row.squeeze else 0, row.activation or activation
                stage.append(Block(row.kind, row.kernel, strides, inner, channels, squeeze, own))
                inputs = channels
        found.append(tuple(stage))
    return tuple(found)


class Residual(nn.Module):
    """A block."""

    config: Config
    block: Block
    drop_path: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        config, block, shortcut = self.config, self.block, x
        activation, layers = FUNCTIONS[block.activation], LAYERS[block.kind]
        for number, name in enumerate(layers, start=1):
            last = number == len(layers)
            if last and block.squeeze:
                inner, gate = (FUNCTIONS[function] for function in config.squeeze)
                names = ("conv_reduce", "conv_expand")
                x = SqueezeExcite(block.squeeze, inner, gate, names, dtype=self.dtype, name="se")(x)
            features = block.channels if last else block.inner
            if name in ("conv_pw", "conv_pwl"):
                convolution = Conv(features, 1, bias=False, dtype=self.dtype, name=name)
            else:
                groups, padding = block.inner if name == "conv_dw" else 1, config.padding(block.kernel)
                convolution = Conv(
                    features, block.kernel, block.strides, padding, groups, bias=False, dtype=self.dtype, name=name
                )
            x = convolution(x)
            # timm numbers the normalisations of a block from 1, whatever its kind.
            x = config.norm(self.dtype)(name=f"bn{number}")(x, train)
            if not last or len(layers) == 1:
                x = activation(x)
        if block.strides == 1 and shortcut.shape == x.shape:
            x = shortcut + DropPath(self.drop_path, of=path_of(self), name="drop_path")(x, train)
        return x


class Stage(nn.Module):
    """The blocks of a stage, each with its rate of stochastic depth."""

    config: Config
    blocks: tuple[Block, ...]
    rates: tuple[float, ...]
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        make = recomputed(Residual, self.remat)
        for number, (block, rate) in enumerate(zip(self.blocks, self.rates, strict=True)):
            x = make(self.config, block, rate, self.dtype, name=str(number))(x, train)
        return x


class Blocks(nn.Module):
    """All stages; gives the map after each that is in `run`."""

    config: Config
    drop_path: float
    dtype: Any
    remat: frozenset[str]

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, run: list[str]) -> dict[str, jax.Array]:
        total, done, maps = sum(len(blocks) for blocks in self.config.stages), 0, {}
        for number, blocks in enumerate(self.config.stages):
            rates = tuple(self.drop_path * (done + index) / total for index in range(len(blocks)))
            done += len(blocks)
            if f"stage{number + 1}" in run:
                again = f"stage{number + 1}" in self.remat
                x = Stage(self.config, blocks, rates, self.dtype, again, name=str(number))(x, train)
                maps[f"stage{number + 1}"] = x
        return maps


class MBConvNet(nn.Module):
    """Images [B, H, W, C], or what the stage `start` takes, -> outputs of all stages from there."""

    config: Config
    num_classes: int
    head: str = "linear"
    dropout: float | None = None
    drop_path: float = 0.0
    dtype: Any = jnp.float32
    remat: frozenset[str] = frozenset()

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, start: str = "") -> dict[str, jax.Array]:
        config, run, found = self.config, running(stages(self.config), start), {}
        activation, norm = FUNCTIONS[config.activation], config.norm(self.dtype)
        if "stem" in run:
            x = Conv(config.stem, 3, 2, config.padding(3), bias=False, dtype=self.dtype, name="conv_stem")(x)
            x = found["stem"] = activation(norm(name="bn1")(x, train))
        found |= Blocks(config, self.drop_path, self.dtype, self.remat, name="blocks")(x, train, run)
        if "neck" in run:
            x = found.get(f"stage{len(config.stages)}", x)
            if config.pooled_neck:
                pooled = ops.global_avg_pool(x)[:, None, None]
                x = activation(Conv(config.neck, 1, dtype=self.dtype, name="conv_head")(pooled))[:, 0, 0]
            else:
                x = Conv(config.neck, 1, bias=False, dtype=self.dtype, name="conv_head")(x)
                x = activation(norm(name="bn2")(x, train))
            found["neck"] = x
        features = x if start == "head" or config.pooled_neck else ops.global_avg_pool(x)
        rate = config.dropout if self.dropout is None else self.dropout
        logits = Head(self.num_classes, self.head, rate, dtype=self.dtype, name="classifier")(features, train)
        return {**found, "features": features, "logits": logits}


def stages(config: Config) -> dict[str, tuple[str, ...]]:
    """Stage name -> globs; `neck` is the last 1x1 convolution."""
    return {
        "stem": ("conv_stem", "bn1"),
        **{f"stage{number + 1}": (f"blocks/{number}",) for number in range(len(config.stages))},
        "neck": ("conv_head",) if config.pooled_neck else ("conv_head", "bn2"),
        "head": ("classifier",),
    }


def architecture(family: str, config: Config, preprocessing: Preprocessing | None = None) -> Architecture:
    return Architecture(family, config, MBConvNet, stages, "conv_stem/kernel", preprocessing or Preprocessing())


def images(size: int, resize: int, interpolation: str = "bicubic", half: bool = False) -> Preprocessing:
    """ImageNet's mean and deviation, or, with `half`, TensorFlow's pixels from -1 to 1."""
    if half:
        return Preprocessing(size, resize, interpolation, (0.5,) * 3, (0.5,) * 3)
    return Preprocessing(size, resize, interpolation)
