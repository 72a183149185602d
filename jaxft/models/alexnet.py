"""AlexNet (Krizhevsky, 2014: one tower, without local response normalisation) in torchvision's form and names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxft import ops
from jaxft.models.architecture import Architecture
from jaxft.models.heads import Head
from jaxft.models.layers import Conv, Dense, Dropout, FlattenDense, Train, recomputed, running, training

#: For each stage its convolutions: (index in torchvision's `features`, which of the widths, kernel, stride, padding).
CONVOLUTIONS = (
    ((0, 0, 11, 4, 2),),
    ((3, 1, 5, 1, 2),),
    ((6, 2, 3, 1, 1), (8, 3, 3, 1, 1), (10, 4, 3, 1, 1)),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """A member of the family.

    Attributes:
      widths: channels of the five convolutions.
      dense: width of the two inner dense layers.
    """

    widths: tuple[int, int, int, int, int] = (64, 192, 384, 256, 256)
    dense: int = 4096


def _stage(config: Config, number: int, dtype: Any) -> Callable[[nn.Module, jax.Array, Train], jax.Array]:
    """Convolutions and pooling, as layers of the module that the function is given."""

    def run(_: nn.Module, x: jax.Array, train: Train) -> jax.Array:
        for index, width, size, strides, padding in CONVOLUTIONS[number]:
            x = nn.relu(Conv(config.widths[width], size, strides, padding, dtype=dtype, name=str(index))(x))
        return ops.max_pool(x, 3, 2)

    return run


class Features(nn.Module):
    """The convolutions; gives the map after each stage that is in `run`."""

    config: Config
    dtype: Any
    remat: frozenset[str]

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, run: list[str]) -> dict[str, jax.Array]:
        maps = {}
        for number in range(len(CONVOLUTIONS)):
            if f"stage{number + 1}" in run:
                run_stage = recomputed(_stage(self.config, number, self.dtype), f"stage{number + 1}" in self.remat)
                x = maps[f"stage{number + 1}"] = run_stage(self, x, train)
        return maps


class Classifier(nn.Module):
    """Two dense layers, the neck, and the head, which is torchvision's `classifier.6` alone. Gives (features, logits).

    Dropout is in front of the two: the head has none of its own.
    """

    width: int
    num_classes: int
    head: str
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, run: list[str]) -> tuple[jax.Array, jax.Array]:
        own = "/".join(self.path)
        if "neck" in run:
            if self.dropout and training(train, f"{own}/1"):
                x = ops.adaptive_avg_pool(x, (6, 6))  # the dropout is behind the pooling: each of the 36 pixels has its own
            x = Dropout(self.dropout, of=f"{own}/1", name="0")(x, train)
            x = nn.relu(FlattenDense(self.width, 6, dtype=self.dtype, name="1")(x))
            x = Dropout(self.dropout, of=f"{own}/4", name="3")(x, train)
            x = nn.relu(Dense(self.width, dtype=self.dtype, name="4")(x))
        return x, Head(self.num_classes, self.head, dtype=self.dtype, name="6")(x, train)


class AlexNet(nn.Module):
    """Images [B, H, W, C], or what the stage `start` takes, -> outputs of all stages from there.

    Any size from 63 pixels; the classifier sees a map pooled to 6x6.
    """

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
        classifier = Classifier(self.config.dense, self.num_classes, self.head, self.dropout, self.dtype, name="classifier")
        features, logits = classifier(found.get("stage3", x), train, run)
        if "neck" in run:
            found["neck"] = features
        return {**found, "features": features, "logits": logits}


def stages(config: Config) -> dict[str, tuple[str, ...]]:
    """Stage name -> globs: convolutions between two poolings, the two inner dense layers (`neck`), the head."""
    return {
        **{
            f"stage{number}": tuple(f"features/{convolution[0]}" for convolution in convolutions)
            for number, convolutions in enumerate(CONVOLUTIONS, start=1)
        },
        "neck": ("classifier/1", "classifier/4"),
        "head": ("classifier/6",),
    }


def architecture(config: Config) -> Architecture:
    # Three poolings leave nothing of 62 pixels.
    return Architecture("alexnet", config, AlexNet, stages, "features/0/kernel", options=("dropout",), min_size=63)


ARCHITECTURES = {"alexnet": architecture(Config())}
