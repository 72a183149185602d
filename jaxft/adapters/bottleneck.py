"""Bottleneck adapters (Houlsby et al., 2019, arXiv:1902.00751): two small dense layers after a module, added
to what it gives."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxft import tree
from jaxft.errors import JaxftError
from jaxft.typing import Around, Params

#: Where a network has attention and dense parts, after these, inside the residual branch, as Houlsby et al. put them; else
#: after its blocks.
_BRANCHES = ("**/attn", "**/mlp")


@dataclasses.dataclass(frozen=True)
class Bottleneck:
    """What a module gives, y [..., D], becomes `y + gelu(y @ down + down_bias) @ up + up_bias`.

    `down` [D, r], `up` [r, D]. `up` starts with zeros, so that the network is what it was; `down` is drawn with a standard
    deviation of 1 / sqrt(D). The adapters cannot be merged: they are run.

    Attributes:
      widths: '/' path of each adapted module -> D.
      width: r.
    """

    widths: Mapping[str, int]
    width: int
    name: str = "bottleneck"

    def init(self, rng: jax.Array, params: Params) -> Params:
        """Draws `down`."""
        del params
        found = {}
        for number, (module, width) in enumerate(self.widths.items()):
            drawn = jax.random.normal(jax.random.fold_in(rng, number), (width, self.width), jnp.float32)
            found[f"{module}/down"] = drawn / math.sqrt(width)
            found[f"{module}/down_bias"] = jnp.zeros(self.width)
            found[f"{module}/up"] = jnp.zeros((self.width, width))
            found[f"{module}/up_bias"] = jnp.zeros(width)
        return tree.unflatten(found)

    def weights(self, params: Params, adapters: Params) -> Params:
        """The network's own."""
        del adapters
        return params

    def around(self, adapters: Params) -> Mapping[str, Around]:
        """What is done around each adapted module."""
        flat = tree.flatten(adapters)
        names = ("down", "down_bias", "up", "up_bias")
        return {
            module: functools.partial(_added, *(flat[f"{module}/{name}"] for name in names))
            for module in self.widths
            if f"{module}/down" in flat
        }


def _added(
    down: jax.Array,
    down_bias: jax.Array,
    up: jax.Array,
    up_bias: jax.Array,
    call: Callable[[jax.Array], jax.Array],
    x: jax.Array,
) -> jax.Array:
    y = call(x)
    down, down_bias, up, up_bias = (leaf.astype(y.dtype) for leaf in (down, down_bias, up, up_bias))
    rows = y.reshape(-1, y.shape[-1])
    rows = rows + jax.nn.gelu(rows @ down + down_bias, approximate=False) @ up + up_bias
    return rows.reshape(y.shape)


def bottleneck(model: Any, *, width: int = 16, modules: str = "") -> Bottleneck:
    """Bottleneck adapters after a network's attentions and dense parts, or after its blocks.

    Args:
      model: the network.
      width: r, of the inner layer.
      modules: globs, with commas between them, over modules that give one array; "" is `**/attn, **/mlp` where there are such
        modules, else the blocks of all stages: modules whose name is a number and that lie in no other such.

    Raises:
      JaxftError: a glob that matches no module.
    """
    if width < 1:
        raise JaxftError(f"width is {width}: it must be at least 1")
    params, _ = model.shapes
    stages = {path.rpartition("/")[0]: model.stage_of(path) for path in tree.paths(params)}
    outputs, blocks = {}, []
    for path, (shape, _) in model.called.items():
        within = {stage for module, stage in stages.items() if module == path or module.startswith(f"{path}/")} - {"head"}
        if within:
            outputs[path] = shape
        if path.rpartition("/")[2].isdigit() and any(stage.startswith("stage") for stage in within):
            blocks.append(path)
    globs = [glob.strip() for glob in modules.split(",") if glob.strip()]
    if not globs:
        globs = [glob for glob in _BRANCHES if any(_is(glob, path) for path in outputs)]
    if globs:
        chosen = [path for path in outputs if any(_is(glob, path) for glob in globs)]
        for glob in globs:
            if not any(_is(glob, path) for path in outputs):
                tree.find(glob, outputs)  # its error names what is near
                raise JaxftError(f"modules: '{glob}' names parts of modules that give one array, but none of these itself")
    else:
        chosen = [path for path in blocks if not any(path.startswith(f"{other}/") for other in blocks)]
    if not chosen:
        raise JaxftError(f"{model.name} has no modules called attn or mlp, and no numbered blocks: name some with modules=")
    return Bottleneck({path: outputs[path][-1] for path in chosen}, width)


def _is(glob: str, path: str) -> bool:
    """Whether a glob names a module itself, not only what lies above it."""
    return tree.matches(glob, path) and not tree.matches(glob, path.rpartition("/")[0])
