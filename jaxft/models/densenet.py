"""DenseNet (Huang et al., 2017; the BC form: bottlenecks and compression), named as torchvision and timm both name it.

Keras' have its own BatchNorm, and are called `keras_`.
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
from jaxft.models.layers import KERAS_NORM, TORCH_NORM, Conv, Norm, Train, recomputed, running

BOTTLENECK = 4  # channels between the two convolutions of a layer, in growths


@dataclasses.dataclass(frozen=True)
class Config:
    """A member of the family.

    Attributes:
      depths: layers in each of the dense blocks.
      growth: channels that a layer adds to the map. The stem has twice as many.
      norm: every BatchNorm.
    """

    depths: tuple[int, ...]
    growth: int = 32
    norm: Norm = TORCH_NORM


class DenseLayer(nn.Module):
    """From all maps before it, `growth` new channels: 1x1 and 3x3 convolutions, each after BatchNorm and ReLU.

    It takes the maps one by one: recomputed, it keeps no concatenation of them, as these are quadratic in the depth of a block
    (Pleiss et al., 2017).
    """

    config: Config
    dtype: Any

    @nn.compact
    def __call__(self, maps: tuple[jax.Array, ...], train: Train) -> jax.Array:
        x, growth = jnp.concatenate(maps, -1), self.config.growth
        for number, (width, size) in enumerate(((BOTTLENECK * growth, 1), (growth, 3)), start=1):
            x = nn.relu(self.config.norm(self.dtype, f"norm{number}")(x, train))
            x = Conv(width, size, padding=size // 2, bias=False, dtype=self.dtype, name=f"conv{number}")(x)
        return x


class DenseBlock(nn.Module):
    """Layers, each of which sees the block's input and what all layers before it added."""

    config: Config
    depth: int
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        make = recomputed(DenseLayer, self.remat)
        maps: tuple[jax.Array, ...] = (x,)
        for number in range(1, self.depth + 1):
            maps = (*maps, make(self.config, self.dtype, name=f"denselayer{number}")(maps, train))
        return jnp.concatenate(maps, -1)


class Transition(nn.Module):
    """Between two blocks: half the channels and half the size."""

    config: Config
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        x = nn.relu(self.config.norm(self.dtype, "norm")(x, train))
        return ops.avg_pool(Conv(x.shape[-1] // 2, 1, bias=False, dtype=self.dtype, name="conv")(x), 2)


class Features(nn.Module):
    """All but the classifier; gives the maps of what is in `run`."""

    config: Config
    dtype: Any
    remat: frozenset[str]

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, run: list[str]) -> dict[str, jax.Array]:
        growth, maps = self.config.growth, {}
        if "stem" in run:
            x = Conv(2 * growth, 7, 2, padding=3, bias=False, dtype=self.dtype, name="conv0")(x)
            x = nn.relu(self.config.norm(self.dtype, "norm0")(x, train))
            x = maps["stem"] = ops.max_pool(x, 3, 2, 1)
        for number, depth in enumerate(self.config.depths, start=1):
            if f"stage{number}" not in run:
                continue
            if number > 1:
                x = Transition(self.config, self.dtype, name=f"transition{number - 1}")(x, train)
            block = DenseBlock(self.config, depth, self.dtype, f"stage{number}" in self.remat, name=f"denseblock{number}")
            x = maps[f"stage{number}"] = block(x, train)
        if "neck" in run:
            maps["neck"] = nn.relu(self.config.norm(self.dtype, "norm5")(x, train))
        return maps


class DenseNet(nn.Module):
    """Images [B, H, W, C], or what the stage `start` takes, -> outputs of all stages from there."""

    config: Config
    num_classes: int
    head: str = "linear"
    dropout: float = 0.0
    dtype: Any = jnp.float32
    remat: frozenset[str] = frozenset()

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, start: str = "") -> dict[str, jax.Array]:
        run = running(stages(self.config), start)
        found = Features(self.config, self.dtype, self.remat, name="features")(x, train, run)
        features = x if start == "head" else ops.global_avg_pool(found["neck"])
        logits = Head(self.num_classes, self.head, self.dropout, dtype=self.dtype, name="classifier")(features, train)
        return {**found, "features": features, "logits": logits}


def stages(config: Config) -> dict[str, tuple[str, ...]]:
    """Stage name -> globs: a stage is a dense block and the transition before it; `neck` is the last normalisation."""
    found: dict[str, tuple[str, ...]] = {"stem": ("features/conv0", "features/norm0")}
    for number in range(1, len(config.depths) + 1):
        before = (f"features/transition{number - 1}",) if number > 1 else ()
        found[f"stage{number}"] = (*before, f"features/denseblock{number}")
    return {**found, "neck": ("features/norm5",), "head": ("classifier",)}


def architecture(config: Config) -> Architecture:
    return Architecture("densenet", config, DenseNet, stages, "features/conv0/kernel", options=("dropout",))


ARCHITECTURES = {
    "densenet121": architecture(Config((6, 12, 24, 16))),
    "densenet161": architecture(Config((6, 12, 36, 24), growth=48)),
    "densenet169": architecture(Config((6, 12, 32, 32))),
    "densenet201": architecture(Config((6, 12, 48, 32))),
    "keras_densenet121": architecture(Config((6, 12, 24, 16), norm=KERAS_NORM)),
    "keras_densenet169": architecture(Config((6, 12, 32, 32), norm=KERAS_NORM)),
    "keras_densenet201": architecture(Config((6, 12, 48, 32), norm=KERAS_NORM)),
}
