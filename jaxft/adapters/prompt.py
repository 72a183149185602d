"""Visual prompt tuning (Jia et al., ECCV 2022, arXiv:2203.12119): learnt tokens beside those of the patches."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxft.errors import JaxftError
from jaxft.models import vit
from jaxft.typing import Around, Params


@dataclasses.dataclass(frozen=True)
class Prompt:
    """`prompt` [length, D] is put behind the class token and its like: before the first block, to stay until the last
    ("shallow"), or, another one, before every block, after which it is taken out again ("deep").

    Drawn uniformly in +-sqrt(6 / (3 patch^2 + D)), as the authors do: unlike the other adapters it changes the network before
    the first step.

    Attributes:
      length: tokens.
      width: D.
      depth: blocks.
      place: how many tokens stand before.
      patch: side in pixels, for the drawing.
      deep: see above.
    """

    length: int
    width: int
    depth: int
    place: int
    patch: int
    deep: bool
    name: str = "prompt"

    def init(self, rng: jax.Array, params: Params) -> Params:
        """Draws the tokens."""
        del params
        bound = math.sqrt(6 / (3 * self.patch**2 + self.width))
        blocks = range(self.depth if self.deep else 1)
        shape = (self.length, self.width)
        keys = [jax.random.fold_in(rng, block) for block in blocks]
        drawn = [jax.random.uniform(key, shape, jnp.float32, -bound, bound) for key in keys]
        return {"blocks": {str(block): {"prompt": tokens} for block, tokens in zip(blocks, drawn, strict=True)}}

    def weights(self, params: Params, adapters: Params) -> Params:
        """The network's own."""
        del adapters
        return params

    def around(self, adapters: Params) -> Mapping[str, Around]:
        """What is done around the blocks."""
        found: dict[str, Around] = {}
        for block in range(self.depth):
            tokens = adapters.get("blocks", {}).get(str(block), {}).get("prompt")
            taken_out = self.deep or block == self.depth - 1
            if tokens is not None or taken_out:
                found[f"blocks/{block}"] = functools.partial(_prompted, tokens, self.place, self.length if taken_out else 0)
        return found


def _prompted(
    tokens: jax.Array | None, place: int, taken_out: int, call: Callable[[jax.Array], jax.Array], x: jax.Array
) -> jax.Array:
    """A block on tokens [B, P + N, D] with the prompt behind the first P."""
    if tokens is not None:
        prompt = jnp.broadcast_to(tokens.astype(x.dtype), (x.shape[0], *tokens.shape))
        x = jnp.concatenate([x[:, :place], prompt, x[:, place:]], axis=1)  # [B, P + length + N, D]
    y = call(x)
    return jnp.concatenate([y[:, :place], y[:, place + taken_out :]], axis=1) if taken_out else y


def prompt(model: Any, *, length: int = 10, deep: bool = True) -> Prompt:
    """Prompts for a vision transformer.

    Args:
      model: a ViT, DeiT, DINOv2, or the tower of CLIP or SigLIP.
      length: tokens.
      deep: other tokens before every block, or some before the first.

    Raises:
      JaxftError: another kind of network, or no token.
    """
    config = model.architecture.config
    if not isinstance(config, vit.Config):
        raise JaxftError(f"{model.name} takes no prompts: vit, deit, dinov2, clip and siglip do")
    if length < 1:
        raise JaxftError(f"length is {length}: it must be at least 1")
    return Prompt(length, config.width, config.depth, config.prefix, config.patch, deep)
