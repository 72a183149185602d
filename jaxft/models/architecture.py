"""What every family of networks says of each of its members."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxft.errors import JaxftError
from jaxft.preprocessing import Preprocessing

#: Stage name -> globs over parameter paths, in the order of the network, the head last.
Stages = Mapping[str, tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class Positions:
    """Learned position embeddings, which are of the input size.

    Attributes:
      path: of the parameter.
      patch: pixels between two positions.
      prefix: positions before those of the patches: of the class token and its like.
    """

    path: str
    patch: int
    prefix: int

    def size_of(self, positions: np.ndarray) -> int:
        """The input size in pixels that position embeddings [1, prefix + N, D], or without the first axis, are for.

        Raises:
          JaxftError: N is no square.
        """
        patches = positions.shape[-2] - self.prefix if positions.ndim in (2, 3) else 0
        side = math.isqrt(max(patches, 0))
        if side == 0 or side * side != patches:
            form = f"[1, {self.prefix} + N, D]" if self.prefix else "[1, N, D]"
            raise JaxftError(f"position embeddings {list(positions.shape)} are not {form} with N a square number of patches")
        return side * self.patch

    def resized(self, positions: np.ndarray, size: int) -> np.ndarray:
        """Position embeddings for another input size in pixels: bicubic, antialiased; those of the prefix stay.

        What timm's `resample_abs_pos_embed` does.
        """
        old, new, width = self.size_of(positions) // self.patch, size // self.patch, positions.shape[-1]
        grid = jnp.asarray(positions[..., self.prefix :, :], jnp.float32).reshape(old, old, width)
        resized = np.asarray(jax.image.resize(grid, (new, new, width), "cubic", antialias=True), positions.dtype)
        resized = resized.reshape(*positions.shape[:-2], new * new, width)
        return np.concatenate([positions[..., : self.prefix, :], resized], axis=-2)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """How a network is built.

    Attributes:
      family: whose name tables it has (`jaxft.weights.names`).
      config: the family's own frozen dataclass: all that tells its members apart.
      module: takes the config, num_classes, head, dtype, remat (a set of stage names), and by name what `options` lists.
      stages: the config's stages.
      first_conv: path of the kernel that reads the image.
      preprocessing: what an image must be where the weights do not say.
      options: which of dropout, drop_path and size the module takes.
      positions: its position embeddings; None where there are none.
      min_size: the smallest input in pixels.
      head_reads: the key of the outputs that the head takes.
      window_pixels: a side of which is a multiple has whole windows in every stage; at others libraries differ. 0: no windows.
    """

    family: str
    config: Any
    module: Callable[..., nn.Module]
    stages: Callable[[Any], Stages]
    first_conv: str
    preprocessing: Preprocessing = dataclasses.field(default_factory=Preprocessing)
    options: tuple[str, ...] = ("dropout", "drop_path")
    positions: Positions | None = None
    min_size: int = 32
    head_reads: str = "features"
    window_pixels: int = 0
