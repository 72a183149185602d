"""MLP-Mixer (Tolstikhin et al., 2021, arXiv:2105.01601) in timm's form and names: dense layers over patches, and over channels.

Maps between stages are patches [B, N, D], row by row. N is a dimension of the parameters: weights are for one input size.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxft.errors import JaxftError
from jaxft.models.architecture import Architecture
from jaxft.models.heads import Head
from jaxft.models.layers import DropPath, LayerNorm, Train, path_of, recomputed, running
from jaxft.models.vit_layers import Mlp, PatchEmbed, check_size, stage_of, stages_of_blocks
from jaxft.preprocessing import Preprocessing

EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class Config:
    """A member of the family.

    Attributes:
      width, depth: of the blocks.
      patch: side of a patch in pixels.
    """

    width: int
    depth: int
    patch: int


class Block(nn.Module):
    """A small dense network over the patches of each channel, then one over the channels of each patch; both are added."""

    drop_path: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        width = x.shape[-1]
        patches = Mlp(width // 2, "gelu", self.dtype, name="mlp_tokens")
        channels = Mlp(4 * width, "gelu", self.dtype, name="mlp_channels")
        first, second = (DropPath(self.drop_path, of=path_of(self), name=f"drop_path{number}") for number in (1, 2))
        turned = LayerNorm(EPSILON, self.dtype, name="norm1")(x).swapaxes(1, 2)  # [B, D, N]
        x = x + first(patches(turned).swapaxes(1, 2), train)
        return x + second(channels(LayerNorm(EPSILON, self.dtype, name="norm2")(x)), train)


class Blocks(nn.Module):
    """All blocks; gives the patches after each stage that is in `run`."""

    depth: int
    drop_path: float
    dtype: Any
    remat: frozenset[str]

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, run: list[str]) -> dict[str, jax.Array]:
        maps: dict[str, jax.Array] = {}
        for number in range(self.depth):
            stage = stage_of(self.depth, number)
            if stage in run:
                make = recomputed(Block, stage in self.remat)
                x = maps[stage] = make(self.drop_path, self.dtype, name=str(number))(x, train)
        return maps


class Mixer(nn.Module):
    """Images [B, size, size, C], or what the stage `start` takes, -> outputs of all stages from there."""

    config: Config
    num_classes: int
    size: int
    head: str = "linear"
    dropout: float = 0.0
    drop_path: float = 0.0
    dtype: Any = jnp.float32
    remat: frozenset[str] = frozenset()

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, start: str = "") -> dict[str, jax.Array]:
        config, run, found = self.config, running(stages(self.config), start), {}
        if "stem" in run:
            if x.shape[1:3] != (self.size, self.size):
                raise JaxftError(
                    f"this network takes images of {self.size}x{self.size} pixels, these have {x.shape[1]}x{x.shape[2]}"
                )
            x = found["stem"] = PatchEmbed(config.width, config.patch, True, self.dtype, name="stem")(x)
        blocks = Blocks(config.depth, self.drop_path, self.dtype, self.remat, name="blocks")(x, train, run)
        found, x = found | blocks, [x, *blocks.values()][-1]
        if "neck" in run:
            x = found["neck"] = LayerNorm(EPSILON, self.dtype, name="norm")(x)
        features = x if start == "head" else x.mean(1)
        logits = Head(self.num_classes, self.head, self.dropout, dtype=self.dtype, name="head")(features, train)
        return {**found, "features": features, "logits": logits}


def make(config: Config, *, size: int, **options: Any) -> Mixer:
    """A `Mixer`.

    Raises:
      JaxftError: a size that is no whole number of patches.
    """
    check_size(size, config.patch)
    return Mixer(config, size=size, **options)


def stages(config: Config) -> dict[str, tuple[str, ...]]:
    """Stage name -> globs: what makes patches, four stages of blocks, the last normalisation (`neck`), the head."""
    return {"stem": ("stem",), **stages_of_blocks(config.depth), "neck": ("norm",), "head": ("head",)}


def architecture(config: Config) -> Architecture:
    half = (0.5, 0.5, 0.5)
    pixels = Preprocessing(224, 256, "bicubic", half, half)
    return Architecture("mixer", config, make, stages, "stem/proj/kernel", pixels, ("dropout", "drop_path", "size"))


#: Size -> width and depth.
_SIZES = {"s": (512, 8), "b": (768, 12), "l": (1024, 24)}
ARCHITECTURES = {
    f"mixer_{size}{patch}_224": architecture(Config(width, depth, patch))
    for size, (width, depth) in _SIZES.items()
    for patch in (32, 16)
}
