"""Scaling and shifting features (Lian et al., SSF, NeurIPS 2022, arXiv:2210.08823)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxft import tree
from jaxft.errors import JaxftError
from jaxft.typing import Around, Params

SCALE, SHIFT = "ssf_scale", "ssf_shift"
_WEIGHTS = ("kernel", "scale")


@dataclasses.dataclass(frozen=True)
class Ssf:
    """What a module gives, y [..., O], becomes `ssf_scale * y + ssf_shift`: its kernel (or norm's scale) and its bias are
    multiplied by the scale, and the shift is added to the bias.

    Both are [O]; they start with ones and zeros (the authors draw them around these with a deviation of 0.02), so that the
    network is what it was. A convolution without a bias is left to the BatchNorm after it, which can do the same.

    Attributes:
      modules: '/' paths.
    """

    modules: tuple[str, ...]
    name: str = "ssf"

    def init(self, rng: jax.Array, params: Params) -> Params:
        """Ones and zeros."""
        del rng
        flat, found = tree.flatten(params), {}
        for module in self.modules:
            width = flat[f"{module}/bias"].shape
            found[f"{module}/{SCALE}"], found[f"{module}/{SHIFT}"] = jnp.ones(width), jnp.zeros(width)
        return tree.unflatten(found)

    def weights(self, params: Params, adapters: Params) -> Params:
        """Kernels, scales and biases that the network computes with."""
        flat, added = tree.flatten(params), tree.flatten(adapters)
        for module in self.modules:
            if (bias := f"{module}/bias") in flat:  # stages that do not run may be left out
                weight = next(f"{module}/{name}" for name in _WEIGHTS if f"{module}/{name}" in flat)
                scale = added[f"{module}/{SCALE}"]
                flat[weight], flat[bias] = flat[weight] * scale, flat[bias] * scale + added[f"{module}/{SHIFT}"]
        return tree.unflatten(flat)

    def around(self, adapters: Params) -> Mapping[str, Around]:
        return {}


def ssf(model: Any, *, modules: str = "**") -> Ssf:
    """SSF for every module that has a kernel or a scale, and a bias.

    Args:
      model: the network.
      modules: globs, with commas between them; the head is never among them.

    Raises:
      JaxftError: a glob that matches no such module.
    """
    params, _ = model.shapes
    paths = set(tree.paths(params))
    parents = dict.fromkeys(path.rpartition("/")[0] for path in tree.paths(params))
    whole = [
        module
        for module in parents
        if f"{module}/bias" in paths
        and any(f"{module}/{name}" in paths for name in _WEIGHTS)
        and model.stage_of(f"{module}/bias") != "head"
        and not module.endswith("/grn")  # ConvNeXt V2's norm has the map itself as a summand, which its scale does not scale
    ]
    if not whole:
        raise JaxftError(f"{model.name} has no module with a bias that SSF could scale and shift")
    chosen = {module for glob in modules.split(",") for module in tree.find(glob.strip(), whole)}
    return Ssf(tuple(module for module in whole if module in chosen))
