"""Inception-v3 (Szegedy et al., 2016), named as torchvision and timm name it.

Keras' does not count padding in averages, and its BatchNorms have no scale and its own statistics.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxft import ops
from jaxft.models.architecture import Architecture
from jaxft.models.heads import Head
from jaxft.models.layers import INCEPTION_NORM, ConvNormAct, Norm, Train, recomputed, running
from jaxft.ops.geometry import Pair
from jaxft.preprocessing import Preprocessing

#: A convolution of a block: name, channels, kernel, stride. With stride 1 it is padded to keep the map's size, with 2 not.
Layer = tuple[str, int, int | Pair, int]


@dataclasses.dataclass(frozen=True)
class Block:
    """Branches side by side.

    Attributes:
      branches: of each, its layers in a row. Layers whose names end in a and b read the same map, and stand side by side.
      pool: channels of the 1x1 convolution after average pooling, the last branch; 0: maximum pooling of stride 2 alone.
    """

    branches: tuple[tuple[Layer, ...], ...]
    pool: int


def _a(pool: int) -> Block:
    five = (("branch5x5_1", 48, 1, 1), ("branch5x5_2", 64, 5, 1))
    three = (("branch3x3dbl_1", 64, 1, 1), ("branch3x3dbl_2", 96, 3, 1), ("branch3x3dbl_3", 96, 3, 1))
    return Block(((("branch1x1", 64, 1, 1),), five, three), pool)


_B = Block(
    (
        (("branch3x3", 384, 3, 2),),
        (("branch3x3dbl_1", 64, 1, 1), ("branch3x3dbl_2", 96, 3, 1), ("branch3x3dbl_3", 96, 3, 2)),
    ),
    0,
)


def _c(width: int) -> Block:
    row, column = (1, 7), (7, 1)
    seven = (("branch7x7_1", width, 1, 1), ("branch7x7_2", width, row, 1), ("branch7x7_3", 192, column, 1))
    double = (
        ("branch7x7dbl_1", width, 1, 1),
        ("branch7x7dbl_2", width, column, 1),
        ("branch7x7dbl_3", width, row, 1),
        ("branch7x7dbl_4", width, column, 1),
        ("branch7x7dbl_5", 192, row, 1),
    )
    return Block(((("branch1x1", 192, 1, 1),), seven, double), 192)


_D = Block(
    (
        (("branch3x3_1", 192, 1, 1), ("branch3x3_2", 320, 3, 2)),
        (
            ("branch7x7x3_1", 192, 1, 1),
            ("branch7x7x3_2", 192, (1, 7), 1),
            ("branch7x7x3_3", 192, (7, 1), 1),
            ("branch7x7x3_4", 192, 3, 2),
        ),
    ),
    0,
)
_E = Block(
    (
        (("branch1x1", 320, 1, 1),),
        (("branch3x3_1", 384, 1, 1), ("branch3x3_2a", 384, (1, 3), 1), ("branch3x3_2b", 384, (3, 1), 1)),
        (
            ("branch3x3dbl_1", 448, 1, 1),
            ("branch3x3dbl_2", 384, 3, 1),
            ("branch3x3dbl_3a", 384, (1, 3), 1),
            ("branch3x3dbl_3b", 384, (3, 1), 1),
        ),
    ),
    192,
)
STEM = tuple(f"Conv2d_{name}" for name in ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3"))
STAGES: dict[str, dict[str, Block]] = {
    "stage1": {"5b": _a(32), "5c": _a(64), "5d": _a(64)},
    "stage2": {"6a": _B, "6b": _c(128), "6c": _c(160), "6d": _c(160), "6e": _c(192)},
    "stage3": {"7a": _D, "7b": _E, "7c": _E},
}


@dataclasses.dataclass(frozen=True)
class Config:
    """A member of the family.

    Attributes:
      aux: whether it has the auxiliary head, whose logits f32 [B, K] are the output `aux1`. torchvision adds 0.4 of its loss.
      count_padding: whether zeros around a map count in averages.
      norm: every BatchNorm.
    """

    aux: bool = False
    count_padding: bool = True
    norm: Norm = INCEPTION_NORM


class Mixed(nn.Module):
    """A block."""

    config: Config
    block: Block
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        found = [self._branch(x, layers, train) for layers in self.block.branches]
        if self.block.pool:
            pooled = ops.avg_pool(x, 3, 1, 1, count_include_pad=self.config.count_padding)
            pool = ConvNormAct(self.block.pool, 1, norm=self.config.norm, dtype=self.dtype, name="branch_pool")
            found.append(pool(pooled, train))
        else:
            found.append(ops.max_pool(x, 3, 2))
        return jnp.concatenate(found, axis=-1)

    def _branch(self, x: jax.Array, layers: tuple[Layer, ...], train: Train) -> jax.Array:
        side = []
        for name, width, kernel, strides in layers:
            height, across = (kernel, kernel) if isinstance(kernel, int) else kernel
            pads = ((height // 2,) * 2, (across // 2,) * 2) if strides == 1 else ((0, 0), (0, 0))
            y = ConvNormAct(width, kernel, strides, pads, self.config.norm, self.dtype, name=name)(x, train)
            if name[-1] in "ab":
                side.append(y)
            else:
                x = y
        return jnp.concatenate(side, axis=-1) if side else x


class AuxiliaryHead(nn.Module):
    """A map of at least 17x17 -> logits."""

    num_classes: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        x = ConvNormAct(128, 1, dtype=self.dtype, name="conv0")(ops.avg_pool(x, 5, 3), train)
        x = ops.global_avg_pool(ConvNormAct(768, 5, dtype=self.dtype, name="conv1")(x, train))
        return Head(self.num_classes, dtype=self.dtype, name="fc")(x, train)


class InceptionV3(nn.Module):
    """Images [B, H, W, C], or what the stage `start` takes, -> outputs of all stages from there."""

    config: Config
    num_classes: int
    head: str = "linear"
    dropout: float = 0.5
    dtype: Any = jnp.float32
    remat: frozenset[str] = frozenset()

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, start: str = "") -> dict[str, jax.Array]:
        run, found = running(stages(self.config), start), {}
        if "stem" in run:
            make = functools.partial(ConvNormAct, norm=self.config.norm, dtype=self.dtype)
            x = make(32, 3, 2, name="Conv2d_1a_3x3")(x, train)
            x = make(32, 3, name="Conv2d_2a_3x3")(x, train)
            x = make(64, 3, padding=1, name="Conv2d_2b_3x3")(x, train)
            x = make(80, 1, name="Conv2d_3b_1x1")(ops.max_pool(x, 3, 2), train)
            x = make(192, 3, name="Conv2d_4a_3x3")(x, train)
            x = found["stem"] = ops.max_pool(x, 3, 2)
        for stage, blocks in STAGES.items():
            if stage in run:
                mixed = recomputed(Mixed, stage in self.remat)
                for name, block in blocks.items():
                    x = mixed(self.config, block, self.dtype, name=f"Mixed_{name}")(x, train)
                found[stage] = x
                if self.config.aux and stage == "stage2":
                    found["aux1"] = AuxiliaryHead(self.num_classes, self.dtype, name="AuxLogits")(x, train)
        features = x if start == "head" else ops.global_avg_pool(x)
        logits = Head(self.num_classes, self.head, self.dropout, dtype=self.dtype, name="fc")(features, train)
        return {**found, "features": features, "logits": logits}


def stages(config: Config) -> dict[str, tuple[str, ...]]:
    """Stage name -> globs. The auxiliary head is of the stage whose map it reads, but its last layer of the head."""
    found: dict[str, tuple[str, ...]] = {"stem": STEM}
    for stage, blocks in STAGES.items():
        found[stage] = tuple(f"Mixed_{name}" for name in blocks)
    if not config.aux:
        return {**found, "head": ("fc",)}
    found["stage2"] += ("AuxLogits/conv0", "AuxLogits/conv1")
    return {**found, "head": ("fc", "AuxLogits/fc")}


def architecture(config: Config) -> Architecture:
    """Pixels are (x - 0.5) / 0.5: torchvision's network makes them of ImageNet's normalised ones (`transform_input`)."""
    half = (0.5, 0.5, 0.5)
    preprocessing = Preprocessing(299, 342, mean=half, std=half)
    smallest = 299 if config.aux else 75
    first = "Conv2d_1a_3x3/conv/kernel"
    return Architecture("inception_v3", config, InceptionV3, stages, first, preprocessing, ("dropout",), min_size=smallest)


ARCHITECTURES = {
    "inception_v3": architecture(Config()),
    "inception_v3_aux": architecture(Config(aux=True)),
    "keras_inception_v3": architecture(Config(False, False, Norm(1e-3, 0.01, unbiased=False, scaled=False))),
}
