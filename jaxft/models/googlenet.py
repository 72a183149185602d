"""GoogLeNet (Szegedy et al., 2015) with BatchNorm, named as torchvision names it.

As in torchvision, whose weights come from TensorFlow, the paper's 5x5 convolutions are 3x3.
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
from jaxft.models.layers import ConvNormAct, FlattenDense, Train, recomputed, running
from jaxft.preprocessing import Preprocessing

#: Of each stage, the inception modules: name -> channels of the four branches, the two in the middle reduced first.
STAGES: dict[str, dict[str, tuple[int, int, int, int, int, int]]] = {
    "stage1": {"3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64)},
    "stage2": {
        "4a": (192, 96, 208, 16, 48, 64),
        "4b": (160, 112, 224, 24, 64, 64),
        "4c": (128, 128, 256, 24, 64, 64),
        "4d": (112, 144, 288, 32, 64, 64),
        "4e": (256, 160, 320, 32, 128, 128),
    },
    "stage3": {"5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128)},
}
#: Modules after which an auxiliary head reads the map.
AUXILIARY = {"4a": "aux1", "4d": "aux2"}


@dataclasses.dataclass(frozen=True)
class Config:
    """A member of the family.

    Attributes:
      aux: whether it has the two auxiliary heads, whose logits f32 [B, K] are the outputs `aux1` and `aux2`. The paper adds
        0.3 of the loss of each in training.
    """

    aux: bool = False


class Branch(nn.Module):
    """Convolutions in a row, each (channels, kernel); numbered from `first`."""

    layers: tuple[tuple[int, int], ...]
    first: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        for number, (width, kernel) in enumerate(self.layers, start=self.first):
            x = ConvNormAct(width, kernel, padding=kernel // 2, dtype=self.dtype, name=str(number))(x, train)
        return x


class Inception(nn.Module):
    """Four branches side by side: 1x1; 1x1 and 3x3, twice; pooling and 1x1."""

    widths: tuple[int, int, int, int, int, int]
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        one, reduced3, three, reduced5, five, pooled = self.widths
        branches = [
            ConvNormAct(one, 1, dtype=self.dtype, name="branch1")(x, train),
            Branch(((reduced3, 1), (three, 3)), 0, self.dtype, name="branch2")(x, train),
            Branch(((reduced5, 1), (five, 3)), 0, self.dtype, name="branch3")(x, train),
            # torchvision numbers the pooling.
            Branch(((pooled, 1),), 1, self.dtype, name="branch4")(ops.max_pool(x, 3, 1, 1, ceil_mode=True), train),
        ]
        return jnp.concatenate(branches, axis=-1)


class AuxiliaryHead(nn.Module):
    """A map -> logits: pooled to 4x4, 1x1 convolution, two dense layers."""

    num_classes: int
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        x = ConvNormAct(128, 1, dtype=self.dtype, name="conv")(ops.adaptive_avg_pool(x, (4, 4)), train)
        x = nn.relu(FlattenDense(1024, 4, dtype=self.dtype, name="fc1")(x))
        return Head(self.num_classes, "linear", self.dropout, dtype=self.dtype, name="fc2")(x, train)


class GoogLeNet(nn.Module):
    """Images [B, H, W, C], or what the stage `start` takes, -> outputs of all stages from there."""

    config: Config
    num_classes: int
    head: str = "linear"
    dropout: float = 0.2
    dtype: Any = jnp.float32
    remat: frozenset[str] = frozenset()

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, start: str = "") -> dict[str, jax.Array]:
        run, found = running(stages(self.config), start), {}
        if "stem" in run:
            x = ConvNormAct(64, 7, 2, 3, dtype=self.dtype, name="conv1")(x, train)
            x = ops.max_pool(x, 3, 2, ceil_mode=True)
            x = ConvNormAct(64, 1, dtype=self.dtype, name="conv2")(x, train)
            x = found["stem"] = ConvNormAct(192, 3, padding=1, dtype=self.dtype, name="conv3")(x, train)
        for stage, modules in STAGES.items():
            if stage not in run:
                continue
            make = recomputed(Inception, stage in self.remat)
            x = ops.max_pool(x, 2 if stage == "stage3" else 3, 2, ceil_mode=True)
            for name, widths in modules.items():
                x = make(widths, self.dtype, name=f"inception{name}")(x, train)
                if self.config.aux and name in AUXILIARY:
                    aux = AUXILIARY[name]
                    # The original's rate, 0.7, stands or falls with the head's.
                    rate = 0.7 if self.dropout else 0.0
                    found[aux] = AuxiliaryHead(self.num_classes, rate, self.dtype, name=aux)(x, train)
            found[stage] = x
        features = x if start == "head" else ops.global_avg_pool(x)
        logits = Head(self.num_classes, self.head, self.dropout, dtype=self.dtype, name="fc")(features, train)
        return {**found, "features": features, "logits": logits}


def stages(config: Config) -> dict[str, tuple[str, ...]]:
    """Stage name -> globs. An auxiliary head is of the stage whose map it reads, but its last layer of the head."""
    found: dict[str, tuple[str, ...]] = {"stem": ("conv1", "conv2", "conv3")}
    for stage, modules in STAGES.items():
        found[stage] = tuple(f"inception{name}" for name in modules)
    if not config.aux:
        return {**found, "head": ("fc",)}
    inner = tuple(f"{aux}/{part}" for aux in AUXILIARY.values() for part in ("conv", "fc1"))
    found["stage2"] += inner
    return {**found, "head": ("fc", *(f"{aux}/fc2" for aux in AUXILIARY.values()))}


def architecture(config: Config) -> Architecture:
    """torchvision's weights take pixels (x - 0.5) / 0.5: its network makes them of ImageNet's (`transform_input`)."""
    half = (0.5, 0.5, 0.5)
    return Architecture(
        "googlenet", config, GoogLeNet, stages, "conv1/conv/kernel", Preprocessing(mean=half, std=half), ("dropout",)
    )


ARCHITECTURES = {"googlenet": architecture(Config()), "googlenet_aux": architecture(Config(aux=True))}
