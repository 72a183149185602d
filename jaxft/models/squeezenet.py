"""SqueezeNet (Iandola et al., 2016), named as torchvision names it."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxft import ops
from jaxft.models.architecture import Architecture
from jaxft.models.heads import Head
from jaxft.models.layers import Conv, Dropout, Train, path_of, recomputed, running


@dataclasses.dataclass(frozen=True)
class Config:
    """A member of the family.

    Attributes:
      stem: channels and kernel of the first convolution, of stride 2.
      stages: of each stage the fire modules, by the channels that each squeezes to; it expands to eight times as many, half of
        them by 1x1 and half by 3x3 convolutions.
    """

    stem: tuple[int, int]
    stages: tuple[tuple[int, ...], ...]

    def fires(self) -> list[list[tuple[int, int]]]:
        """For each stage, its fire modules as (index in torchvision's `features`, channels squeezed to)."""
        index, found = 3, []  # the convolution, ReLU and pooling come first
        for stage in self.stages:
            found.append([(index + number, squeezed) for number, squeezed in enumerate(stage)])
            index += len(stage) + 1  # pooling
        return found


class Fire(nn.Module):
    """1x1 convolutions to few channels, then 1x1 and 3x3 ones side by side, each with ReLU."""

    squeezed: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        width = 4 * self.squeezed
        x = nn.relu(Conv(self.squeezed, 1, dtype=self.dtype, name="squeeze")(x))
        small = Conv(width, 1, dtype=self.dtype, name="expand1x1")(x)
        large = Conv(width, 3, padding=1, dtype=self.dtype, name="expand3x3")(x)
        return nn.relu(jnp.concatenate([small, large], axis=-1))


class Features(nn.Module):
    """The stem and the stages, with pooling before each; gives the map after each that is in `run`."""

    config: Config
    dtype: Any
    remat: frozenset[str]

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, run: list[str]) -> dict[str, jax.Array]:
        maps, (width, kernel) = {}, self.config.stem
        if "stem" in run:
            x = maps["stem"] = nn.relu(Conv(width, kernel, 2, dtype=self.dtype, name="0")(x))
        for number, stage in enumerate(self.config.fires(), start=1):
            if f"stage{number}" in run:
                x = ops.max_pool(x, 3, 2, ceil_mode=True)
                make = recomputed(Fire, f"stage{number}" in self.remat)
                for index, squeezed in stage:
                    x = make(squeezed, self.dtype, name=str(index))(x, train)
                maps[f"stage{number}"] = x
        return maps


class Classifier(nn.Module):
    """The head on each pixel, ReLU, and the mean over pixels.

    ReLU stands between the head and the mean, so that they do not commute: the head reads the last map, not its mean.
    """

    num_classes: int
    head: str
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        x = Dropout(self.dropout, of=f"{path_of(self)}/1", name="0")(x, train)
        return nn.relu(Head(self.num_classes, self.head, dtype=self.dtype, name="1")(x, train)).mean((1, 2))


class SqueezeNet(nn.Module):
    """Images [B, H, W, C], or what the stage `start` takes, -> outputs of all stages from there; `features` are the mean of the
    last map, which the head takes."""

    config: Config
    num_classes: int
    head: str = "linear"
    dropout: float = 0.5
    dtype: Any = jnp.float32
    remat: frozenset[str] = frozenset()

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, start: str = "") -> dict[str, jax.Array]:
        run = running(stages(self.config), start)
        found = Features(self.config, self.dtype, self.remat, name="features")(x, train, run)
        x = found.get(f"stage{len(self.config.stages)}", x)
        logits = Classifier(self.num_classes, self.head, self.dropout, self.dtype, name="classifier")(x, train)
        return {**found, "features": ops.global_avg_pool(x), "logits": logits}


def stages(config: Config) -> dict[str, tuple[str, ...]]:
    """Stage name -> globs."""
    fires = {
        f"stage{number}": tuple(f"features/{index}" for index, _ in stage)
        for number, stage in enumerate(config.fires(), start=1)
    }
    return {"stem": ("features/0",), **fires, "head": ("classifier/1",)}


def architecture(config: Config) -> Architecture:
    last = f"stage{len(config.stages)}"
    return Architecture("squeezenet", config, SqueezeNet, stages, "features/0/kernel", options=("dropout",), head_reads=last)


ARCHITECTURES = {
    "squeezenet1_0": architecture(Config((96, 7), ((16, 16, 32), (32, 48, 48, 64), (64,)))),
    "squeezenet1_1": architecture(Config((64, 3), ((16, 16), (32, 32), (48, 48, 64, 64)))),
}
