"""A network of your own that `jaxft train` and all other commands take by its name:

jaxft train --config=configs/finetune_folder.py:path=PHOTOS --workdir=runs/own \
    --config.model.name=examples.custom_architecture:small --config.model.pretrained= --config.phases.phase1.train=full
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxft.models import Architecture
from jaxft.models.heads import Head
from jaxft.models.layers import BatchNorm, Conv, Train, recomputed, running


@dataclasses.dataclass(frozen=True)
class Config:
    widths: tuple[int, ...] = (16, 32, 64)


class Block(nn.Module):
    width: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        x = Conv(self.width, 3, strides=2, padding=1, bias=False, dtype=self.dtype, name="conv")(x)
        return nn.relu(BatchNorm(dtype=self.dtype, name="bn")(x, train))  # in train mode only where its stage trains


class Small(nn.Module):
    config: Config
    num_classes: int
    head: str = "linear"
    dropout: float = 0.0
    dtype: Any = jnp.float32
    remat: frozenset[str] = frozenset()

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, start: str = "") -> dict[str, jax.Array]:
        run, maps = running(stages(self.config), start), {}
        for name, width in zip(stages(self.config), self.config.widths, strict=False):  # the head is the last stage
            if name in run:
                x = maps[name] = recomputed(Block, name in self.remat)(width, self.dtype, name=name)(x, train)
        features = x.mean((1, 2)) if x.ndim == 4 else x  # with start="head" they are what is given
        logits = Head(self.num_classes, self.head, self.dropout, dtype=self.dtype, name="head")(features, train)
        return {**maps, "features": features, "logits": logits}


def stages(config: Config) -> dict[str, tuple[str, ...]]:
    """Stage name -> globs over parameter paths: what `train="from:stage2"` means."""
    return {**{f"stage{n + 1}": (f"stage{n + 1}",) for n in range(len(config.widths))}, "head": ("head",)}


def small() -> Architecture:
    return Architecture("small", Config(), Small, stages, "stage1/conv/kernel", options=("dropout",), min_size=8)
