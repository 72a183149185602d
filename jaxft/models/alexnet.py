"""AlexNet (Krizhevsky, 2014, arXiv:1404.5997: the one-column form), named as torchvision names it."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxft import ops
from jaxft.models.architecture import Architecture
from jaxft.models.layers import Conv, Dense, Dropout, FlattenDense, Head, Train, running

#: Of each convolution: index in torchvision's `features`, kernel, stride, padding, and whether pooling follows.
LAYERS = ((0, 11, 4, 2, True), (3, 5, 1, 2, True), (6, 3, 1, 1, False), (8, 3, 1, 1, False), (10, 3, 1, 1, True))


@dataclasses.dataclass(frozen=True)
class Config:
    """Widths of the five convolutions and of the two inner dense layers."""

    widths: tuple[int, int, int, int, int] = (64, 192, 384, 256, 256)
    dense: int = 4096


class Features(nn.Module):
    """The convolutions; gives the map after each stage that is in `run`."""

    config: Config
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, run: list[str]) -> dict[str, jax.Array]:
        maps = {}
        for number, ((index, kernel, strides, padding, pooled), width) in enumerate(
            zip(LAYERS, self.config.widths, strict=True), start=1
        ):
            if f"stage{number}" not in run:
                continue
            x = nn.relu(Conv(width, kernel, strides, padding, dtype=self.dtype, name=str(index))(x))
            x = maps[f"stage{number}"] = ops.max_pool(x, 3, 2) if pooled else x
        return maps


class Classifier(nn.Module):
    """Two dense layers, the neck, and the head, which is torchvision's `classifier.6`. Gives (features, logits)."""

    width: int
    num_classes: int
    head: str
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, run: list[str]) -> tuple[jax.Array, jax.Array]:
        own = "/".join(self.path)
        if "neck" in run:
            # Dropping pooled pixels is what torch does; on a 1x1 map, whose pixel the pooling would repeat, it is one pixel.
            x = Dropout(self.dropout, of=f"{own}/1", name="0")(_pooled(x), train)
            x = nn.relu(FlattenDense(self.width, 6, dtype=self.dtype, name="1")(x))
            x = Dropout(self.dropout, of=f"{own}/4", name="3")(x, train)
            x = nn.relu(Dense(self.width, dtype=self.dtype, name="4")(x))
        return x, Head(self.num_classes, self.head, 0.0, dtype=self.dtype, name="6")(x, train)


def _pooled(x: jax.Array) -> jax.Array:
    return x if x.shape[1:3] == (1, 1) else ops.adaptive_avg_pool(x, (6, 6))


class AlexNet(nn.Module):
    """Images [B, H, W, C], or what the stage `start` takes, -> outputs of all stages from there. Any size from 63 pixels."""

    config: Config
    num_classes: int
    head: str = "linear"
    dropout: float = 0.5
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, start: str = "") -> dict[str, jax.Array]:
        run = running(stages(self.config), start)
        found = Features(self.config, self.dtype, name="features")(x, run)  # too shallow for `remat` to save anything
        classifier = Classifier(self.config.dense, self.num_classes, self.head, self.dropout, self.dtype, name="classifier")
        features, logits = classifier(found.get("stage5", x), train, run)
        if "neck" in run:
            found["neck"] = features
        return {**found, "features": features, "logits": logits}


def stages(config: Config) -> dict[str, tuple[str, ...]]:
    """Stage name -> globs: five convolutions, the two inner dense layers (`neck`), the head."""
    found: dict[str, tuple[str, ...]] = {
        f"stage{number}": (f"features/{layer[0]}",) for number, layer in enumerate(LAYERS, start=1)
    }
    return {**found, "neck": ("classifier/1", "classifier/4"), "head": ("classifier/6",)}


def architecture(config: Config) -> Architecture:
    return Architecture("alexnet", config, AlexNet, stages, "features/0/kernel", options=("dropout",), min_size=63)


ARCHITECTURES = {"alexnet": architecture(Config())}
