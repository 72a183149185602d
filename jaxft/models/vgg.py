"""VGG (Simonyan & Zisserman, 2015), with and without BatchNorm, named as torchvision names it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxft import ops
from jaxft.models.layers import BatchNorm, Conv, Dense, Dropout, FlattenDense, Head, Train, recomputed, running

#: Convolutions in each of the five blocks.
DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)


def convolutions(depth: int, batch_norm: bool) -> list[list[tuple[int, int]]]:
    """For each block, its convolutions as (index in torchvision's `features`, output channels)."""
    index, blocks = 0, []
    for count, width in zip(DEPTHS[depth], WIDTHS, strict=True):
        block = []
        for _ in range(count):
            block.append((index, width))
            index += 3 if batch_norm else 2  # convolution, (BatchNorm,) ReLU
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

    depth: int
    batch_norm: bool
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, run: list[str]) -> dict[str, jax.Array]:
        maps = {}
        for number, block in enumerate(convolutions(self.depth, self.batch_norm), start=1):
            if f"stage{number}" not in run:
                continue
            run_block = recomputed(_block(block, self.batch_norm, self.dtype), self.remat)
            x = maps[f"stage{number}"] = run_block(self, x, train)
        return maps


class Classifier(nn.Module):
    """Two dense layers, the neck, and the head, which is torchvision's `classifier.6` alone. Gives (features, logits)."""

    num_classes: int
    head: str
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, run: list[str]) -> tuple[jax.Array, jax.Array]:
        own = "/".join(self.path)
        if "neck" in run:
            x = nn.relu(FlattenDense(4096, 7, dtype=self.dtype, name="0")(x))
            x = Dropout(self.dropout, of=f"{own}/3", name="2")(x, train)
            x = nn.relu(Dense(4096, dtype=self.dtype, name="3")(x))
        return x, Head(self.num_classes, self.head, self.dropout, dtype=self.dtype, name="6")(x, train)


class VGG(nn.Module):
    """Images [B, H, W, C], or what the stage `start` takes, -> outputs of all stages from there.

    Any size from 32 pixels; the classifier sees a map pooled to 7x7.
    """

    depth: int
    batch_norm: bool
    num_classes: int
    head: str = "linear"
    dropout: float = 0.5
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, start: str = "") -> dict[str, jax.Array]:
        run = running(stages(self.depth, self.batch_norm), start)
        found = Features(self.depth, self.batch_norm, self.dtype, self.remat, name="features")(x, train, run)
        classifier = Classifier(self.num_classes, self.head, self.dropout, self.dtype, name="classifier")
        features, logits = classifier(found.get("stage5", x), train, run)
        if "neck" in run:
            found["neck"] = features
        return {**found, "features": features, "logits": logits}


def stages(depth: int, batch_norm: bool) -> dict[str, tuple[str, ...]]:
    """Stage name -> globs: five blocks, the two inner dense layers (`neck`), the head."""
    found: dict[str, tuple[str, ...]] = {}
    for number, block in enumerate(convolutions(depth, batch_norm), start=1):
        offsets = (0, 1) if batch_norm else (0,)
        found[f"stage{number}"] = tuple(f"features/{index + offset}" for index, _ in block for offset in offsets)
    return {**found, "neck": ("classifier/0", "classifier/3"), "head": ("classifier/6",)}
