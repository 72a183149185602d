"""What stands on the features of a network: one dense layer, two, of cosines, or several mixed."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxft.models.layers import Dense, Dropout, Train, at_least_f32, lecun, path_of


class Head(nn.Module):
    """The classifier on features [B, D] -> logits [B, K] f32: dropout, then one dense layer, or two with ReLU between ("mlp").

    "cosine" takes features of length 1, "cosine:E" those of length 1 after a projection `proj` [D, E]: the classifier of CLIP
    (Radford et al., 2021), whose kernel is the scale times the embeddings of texts. Kinds with "+" between them are mixed: each
    has parameters of its own, under `fc/0`, `fc/1`, ..., and the logits are the mean of theirs.

    The single dense layer's parameters stand directly under the head's name (`fc/kernel`), those of the two under
    `fc/hidden` and `fc/out`.
    """

    num_classes: int
    kind: str = "linear"
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        if "+" in self.kind:
            kinds = self.kind.split("+")
            heads = [Head(self.num_classes, kind, self.dropout, self.dtype, name=str(n)) for n, kind in enumerate(kinds)]
            return sum((head(x, train) for head in heads[1:]), heads[0](x, train)) / len(heads)
        x = Dropout(self.dropout, of=path_of(self), name="dropout")(x, train)
        if self.kind == "mlp":
            x = nn.relu(Dense(x.shape[-1], dtype=self.dtype, name="hidden")(x))
            x = Dropout(self.dropout, of=path_of(self), name="dropout2")(x, train)
            return at_least_f32(Dense(self.num_classes, dtype=self.dtype, name="out")(x))
        if self.kind.startswith("cosine"):
            _, _, width = self.kind.partition(":")
            if width:
                x = Dense(int(width), bias=False, dtype=self.dtype, name="proj")(x)
            x = at_least_f32(x)
            x = x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-12))
        kernel = self.param("kernel", lecun, (x.shape[-1], self.num_classes))
        bias = self.param("bias", nn.initializers.zeros, (self.num_classes,))
        return at_least_f32(x.astype(self.dtype) @ kernel.astype(self.dtype) + bias.astype(self.dtype))


class HeadFc(nn.Module):
    """A `Head` called `fc`: timm has a module around the last layer of many networks."""

    num_classes: int
    kind: str = "linear"
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        return Head(self.num_classes, self.kind, self.dropout, dtype=self.dtype, name="fc")(x, train)
