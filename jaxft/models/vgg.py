"""VGG (Simonyan & Zisserman, 2015), with and without BatchNorm, named as torchvision names it."""

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
from jaxft.models.layers import BatchNorm, Conv, Dense, Dropout, FlattenDense, Train, recomputed, running


@dataclasses.dataclass(frozen=True)
class Config:
    """A member of the family.

    Attributes:
      depths, widths: convolutions in each block, and their channels.
      batch_norm: whether each is followed by one.
      dense: width of the two inner dense layers.
    """

    depths: tuple[int, ...]
    batch_norm: bool
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    dense: int = 4096

    def convolutions(self) -> list[list[tuple[int, int]]]:
        """For each block, its convolutions as (index in torchvision's `features`, output channels)."""
        index, blocks = 0, []
        for count, width in zip(self.depths, self.widths, strict=True):
            block = []
            for _ in range(count):
                block.append((index, width))
                index += 3 if self.batch_norm else 2  # convolution, (BatchNorm,) ReLU
            blocks.append(block)
            index += 1  # pooling
        return blocks


def _block(block: list[tuple[int, int]], batch_norm: bool, dtype: Any) -> Callable[[nn.Module, jax.Array, Train], jax.Array]:
    """Convolutions and pooling, as layers of the module that the function is given."""

    def run(_: nn.Module, x: jax.Array, train: Train) -> jax.Array:
        for index, width in block:
            x = Conv(width, 3, padding=1, dtype=dtype, name=str(index))(x)
            if batch_norm:
                x = BatchNorm(dtype=dtype, name=str(index + 1))(x, train)
            x = nn.relu(x)
        return ops.max_pool(x, 2)

    return run


class Features(nn.Module):
    """The five blocks; gives the map after each that is in `run`."""

    config: Config
    dtype: Any
    remat: frozenset[str]

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, run: list[str]) -> dict[str, jax.Array]:
        maps = {}
        for number, block in enumerate(self.config.convolutions(), start=1):
            if f"stage{number}" not in run:
                continue
            run_block = recomputed(_block(block, self.config.batch_norm, self.dtype), f"stage{number}" in self.remat)
            x = maps[f"stage{number}"] = run_block(self, x, train)
        return maps


class Classifier(nn.Module):
    """Two dense layers, the neck, and the head, which is torchvision's `classifier.6` alone. Gives (features, logits)."""

    width: int
    num_classes: int
    head: str
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, run: list[str]) -> tuple[jax.Array, jax.Array]:
        own = "/".join(self.path)
        if "neck" in run:
            x = nn.relu(FlattenDense(self.width, 7, dtype=self.dtype, name="0")(x))
            x = Dropout(self.dropout, of=f"{own}/3", name="2")(x, train)
            x = nn.relu(Dense(self.width, dtype=self.dtype, name="3")(x))
        return x, Head(self.num_classes, self.head, self.dropout, dtype=self.dtype, name="6")(x, train)


class VGG(nn.Module):
    """Images [B, H, W, C], or what the stage `start` takes, -> outputs of all stages from there.

    Any size from 32 pixels; the classifier sees a map pooled to 7x7.
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
        features, logits = classifier(found.get("stage5", x), train, run)
        if "neck" in run:
            found["neck"] = features
        return {**found, "features": features, "logits": logits}


def stages(config: Config) -> dict[str, tuple[str, ...]]:
    """Stage name -> globs: five blocks, the two inner dense layers (`neck`), the head."""
    found: dict[str, tuple[str, ...]] = {}
    for number, block in enumerate(config.convolutions(), start=1):
        offsets = (0, 1) if config.batch_norm else (0,)
        found[f"stage{number}"] = tuple(f"features/{index + offset}" for index, _ in block for offset in offsets)
    return {**found, "neck": ("classifier/0", "classifier/3"), "head": ("classifier/6",)}


def architecture(config: Config) -> Architecture:
    return Architecture("vgg", config, VGG, stages, "features/0/kernel", options=("dropout",))


_DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
ARCHITECTURES = {
    f"vgg{depth}{'_bn' if batch_norm else ''}": architecture(Config(depths, batch_norm))
    for depth, depths in _DEPTHS.items()
    for batch_norm in (False, True)
}
