"""Masked autoencoders (He et al., Masked autoencoders are scalable vision learners, 2022) of the networks of vit.py.

The encoder is the network itself, under its own parameter paths, on the patches that are kept; a small decoder, which stands in
the place of the head, says what the others hold. It is the head "mae", "mae:4x128" (blocks x width) or "mae:4x128:0.6" (and
the share of patches that are hidden); "mae" alone is the paper's 8x512 and 0.75.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxft.errors import JaxftError
from jaxft.models import vit
from jaxft.models.architecture import Architecture
from jaxft.models.layers import Dense, LayerNorm, Train, at_least_f32, random_key, running
from jaxft.models.vit_layers import check_size

#: A head of a decoder's attention is as wide as the paper's: 512 / 16.
HEAD_WIDTH = 32
_TEXT = re.compile(r"mae(?::([1-9]\d*)x([1-9]\d*)(?::(0?\.\d+))?)?")
#: How features may be pooled: what the other ways need does not run, and would stand in no stage.
_POOLS = ("token", "avg", "token+avg")


@dataclasses.dataclass(frozen=True)
class Decoder:
    """What the head's text says: blocks, their width, and the share of patches that are hidden."""

    depth: int = 8
    width: int = 512
    hidden: float = 0.75


def is_mae(head: str) -> bool:
    """Whether the text of a head names a masked autoencoder, be it a right one or not."""
    return head.partition(":")[0] == "mae"


def decoder_of(head: str) -> Decoder:
    """
    Raises:
      JaxftError: a text of another form, a width that has no whole number of attention heads.
    """
    found = _TEXT.fullmatch(head)
    if found is None:
        raise JaxftError(f"head is '{head}', not 'mae', 'mae:BLOCKSxWIDTH' or 'mae:BLOCKSxWIDTH:SHARE', e.g. 'mae:4x128:0.75'")
    depth, width, hidden = found.groups()
    if depth is None:
        return Decoder()
    if int(width) % HEAD_WIDTH:
        raise JaxftError(f"head is '{head}': the width of the decoder must be a multiple of {HEAD_WIDTH}")
    return Decoder(int(depth), int(width), float(hidden) if hidden else Decoder.hidden)


def masked_module(architecture: Architecture) -> Callable[..., nn.Module]:
    """What makes the masked autoencoder of a network: takes what `architecture.module` takes.

    Raises:
      JaxftError: the network is none of vit.py's, or pools in a way that needs all its tokens.
    """
    config = architecture.config
    if not isinstance(config, vit.Config) or config.pool not in _POOLS:
        raise JaxftError(
            "the head 'mae' hides patches from a Vision Transformer with a class token or a mean of patches (vit, deit, "
            f"dinov2, clip), which {architecture.family} is not"
        )
    return _make


def _make(config: vit.Config, *, size: int, head: str, dropout: float = 0.0, **options: Any) -> MaskedAutoencoder:
    if dropout:
        raise JaxftError("the head 'mae' has no dropout: leave it out")
    decoder_of(head)
    check_size(size, config.patch)
    return MaskedAutoencoder(config, size=size, head=head, **options)


class MaskedAutoencoder(vit.ViT):
    """Images [B, size, size, C] -> `logits` [B, N * P], the P = patch * patch * C pixels of N patches; `target` [B, N, P], what
    they are, each patch of mean 0 and variance 1; `masked` [B, N], 1 where a patch was hidden; the ViT's own outputs, of the
    patches that were not.

    Which are hidden is drawn for each image in training, from the key of dropout. In an evaluation it is the same each time for
    each place in a batch.
    """

    @nn.compact
    def __call__(self, x: jax.Array, train: Train, start: str = "", noise: jax.Array | None = None) -> dict[str, jax.Array]:
        """
        Args:
          x: images.
          train: see `jaxft.models`.
          start: "" only: what a later stage takes depends on what was hidden.
          noise: [B, N]; the patches with the least are kept. None draws it.
        """
        config, run, decoder = self.config, running(vit.stages(self.config), ""), decoder_of(self.head)
        if start:
            raise JaxftError(f"a network with the head '{self.head}' starts at the image, not at '{start}'")
        tokens = self._stem(x)
        target = patches_of(x, config.patch)
        count = target.shape[1]
        kept = int(count * (1 - decoder.hidden))
        if not 0 < kept < count:
            raise JaxftError(f"the head '{self.head}' keeps {kept} of {count} patches: some must be hidden and some not")
        if noise is None:
            key = random_key(self) if train else jax.random.key(0)
            noise = jax.random.uniform(key, target.shape[:2])
        order = jnp.argsort(noise, axis=1)
        place = jnp.argsort(order, axis=1)  # of each patch, among those that are kept and then those that are not

        chosen = jnp.take_along_axis(tokens[:, config.prefix :], order[:, :kept, None], axis=1)
        found = {"stem": jnp.concatenate([tokens[:, : config.prefix], chosen], axis=1)}
        found |= vit.Blocks(config, self.drop_path, self.dtype, self.remat, name="blocks")(found["stem"], train, run)
        last = list(found.values())[-1]
        found["neck"] = LayerNorm(config.epsilon, self.dtype, name="norm")(last)
        pixels = PatchDecoder(config, decoder, target.shape[-1], self.dtype, name="head")(found["neck"], place, train)
        return {
            **found,
            "features": self._pooled(found["neck"]),
            "logits": pixels.reshape(len(x), -1),
            "target": normalized(target),
            "masked": (place >= kept).astype(jnp.float32),
        }


class PatchDecoder(nn.Module):
    """Tokens of the patches that were kept -> pixels [B, N, P] of all, f32. Its positions are sines, and no parameters."""

    config: vit.Config
    decoder: Decoder
    pixels: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, place: jax.Array, train: Train) -> jax.Array:
        width, prefix, (batch, count) = self.decoder.width, self.config.prefix, place.shape
        own = vit.Config(width, self.decoder.depth, width // HEAD_WIDTH, self.config.patch, epsilon=self.config.epsilon)
        x = Dense(width, dtype=self.dtype, name="embed")(x)
        token = self.param("mask_token", nn.initializers.normal(0.02), (1, 1, width)).astype(self.dtype)
        hidden = jnp.broadcast_to(token, (batch, count + prefix - x.shape[1], width))
        patches = jnp.concatenate([x[:, prefix:], hidden], axis=1)
        patches = jnp.take_along_axis(patches, place[:, :, None], axis=1) + sine_positions(math.isqrt(count), width, self.dtype)
        x = jnp.concatenate([x[:, :prefix], patches], axis=1)
        run = list(vit.stages(own))
        x = list(vit.Blocks(own, 0.0, self.dtype, frozenset(), name="blocks")(x, train, run).values())[-1]
        x = LayerNorm(own.epsilon, self.dtype, name="norm")(x)
        return at_least_f32(Dense(self.pixels, dtype=self.dtype, name="pred")(x[:, prefix:]))


def patches_of(images: jax.Array, patch: int) -> jax.Array:
    """Images [B, H, W, C] -> [B, H / patch * W / patch, patch * patch * C], f32 or wider, row by row."""
    batch, height, width, channels = images.shape
    cut = at_least_f32(images).reshape(batch, height // patch, patch, width // patch, patch, channels)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, patch * patch * channels)


def normalized(patches: jax.Array) -> jax.Array:
    """Each patch [..., P] of mean 0 and (unbiased) variance 1, as in the reference implementation."""
    mean, var = patches.mean(-1, keepdims=True), patches.var(-1, keepdims=True, ddof=1)
    return (patches - mean) * jax.lax.rsqrt(var + 1e-6)


@functools.lru_cache(maxsize=8)
def _sines(side: int, width: int) -> np.ndarray:
    """f64 [side * side, width]: half of it sines and cosines of the column, half of the row (Vaswani et al., 2017)."""
    frequencies = 1 / 10_000 ** (np.arange(width // 4) / (width / 4))
    row, column = np.divmod(np.arange(side * side), side)
    angles = [np.outer(place, frequencies) for place in (column, row)]
    return np.concatenate([part for angle in angles for part in (np.sin(angle), np.cos(angle))], axis=1)


def sine_positions(side: int, width: int, dtype: Any) -> jax.Array:
    """Position embeddings [side * side, width] of a square of patches, row by row."""
    return jnp.asarray(_sines(side, width), dtype)
