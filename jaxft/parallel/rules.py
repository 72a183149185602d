"""Which part of each parameter a device holds: a table of (glob, action), the first match counts.

The optimizer's state and the running averages of a parameter lie as the parameter does.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxft import tree
from jaxft.errors import JaxftError, near
from jaxft.parallel.mesh import replicated
from jaxft.typing import Mask, Params

#: Parameters of fewer elements are whole on every device: to send them around would take longer than it saves.
FLOOR = 1 << 14

ACTIONS = {
    "replicate": "whole on every device",
    "fsdp": "its longest dimension that `fsdp` divides is split",
    "out": "its outputs, the last dimension, are split over `tensor`, another dimension over `fsdp`",
    "in": "its inputs, the last dimension but one, are split over `tensor`, another dimension over `fsdp`",
}


@dataclasses.dataclass(frozen=True)
class Rule:
    """Parameters whose '/' path `pattern` names (see `jaxft.tree`) are placed by `action`, one of `ACTIONS`."""

    pattern: str
    action: str


#: Pairs of layers, of attention and MLPs, of residual and inverted residual blocks, of VGG's classifier, that are split along
#: the channels between them (Shoeybi et al., 2019): of what lies between only a sum after the second is sent.
PAIRS = (
    *(Rule(f"**/{name}/**", "out") for name in ("qkv", "fc1", "conv1", "conv_pw", "conv_dw", "classifier/0")),
    *(Rule(f"**/{name}/**", "in") for name in ("attn/proj", "fc2", "conv2", "conv_pwl", "classifier/3")),
)
DEFAULT_RULES = (*PAIRS, Rule("**", "fsdp"))


def parse_rules(text: str, paths: Sequence[str]) -> tuple[Rule, ...]:
    """Reads "GLOB:ACTION, GLOB:ACTION" and puts it before the default rules.

    Args:
      text: "" gives the default rules alone.
      paths: '/' paths of the parameters.

    Raises:
      JaxftError: no such action, or a glob that names no parameter.
    """
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        pattern, colon, action = (piece.strip() for piece in part.rpartition(":"))
        if not colon or not re.fullmatch(r"\S+", pattern):
            raise JaxftError(f"config.parallel.rules has '{part}': a rule is written 'GLOB:ACTION', e.g. 'head/**:replicate'")
        if action not in ACTIONS:
            known = "; ".join(f"{name}: {text}" for name, text in ACTIONS.items())
            raise JaxftError(f"config.parallel.rules has the action '{action}'{near(action, ACTIONS)}; there are {known}")
        try:
            tree.find(pattern, paths)
        except JaxftError as error:
            raise JaxftError(f"config.parallel.rules: {error}") from None
        found.append(Rule(pattern, action))
    return (*found, *DEFAULT_RULES)


def spec_of(path: str, shape: Sequence[int], mesh: Mesh, rules: Sequence[Rule]) -> PartitionSpec:
    """How a parameter is split."""
    if np.prod(shape, dtype=np.int64) < FLOOR:
        return PartitionSpec()
    action = next(rule.action for rule in rules if tree.matches(rule.pattern, path))
    if action == "replicate":
        return PartitionSpec()
    parts: list[str | None] = [None] * len(shape)
    tensor = {"out": -1, "in": -2}.get(action)
    if tensor is not None and len(shape) >= -tensor and _divides(mesh.shape["tensor"], shape[tensor]):
        parts[tensor] = "tensor"
    # The longest first; of equal ones the last: outputs rather than inputs or pixels.
    for axis in sorted(range(len(shape)), key=lambda axis: (shape[axis], axis), reverse=True):
        if parts[axis] is None and _divides(mesh.shape["fsdp"], shape[axis]):
            parts[axis] = "fsdp"
            break
    return PartitionSpec(*parts)


def _divides(parts: int, length: int) -> bool:
    return parts > 1 and length % parts == 0


def param_shardings(params: Params, mesh: Mesh, rules: Sequence[Rule] = DEFAULT_RULES, *, whole: Mask | None = None) -> Any:
    """The sharding of every parameter (arrays or shapes).

    Args:
      params: the full tree, or a part of it with the same paths.
      mesh: of `make_mesh`.
      rules: the last must match everything.
      whole: parameters that are True there stay whole on every device, whatever the rules say.
    """
    kept = {} if whole is None else tree.flatten(whole)

    def placed(path: str, leaf: Any) -> NamedSharding:
        spec = PartitionSpec() if kept.get(path, False) else spec_of(path, leaf.shape, mesh, rules)
        return NamedSharding(mesh, spec)

    return tree.map_with_path(placed, params)


def state_shardings(state: Any, params: Mapping[str, NamedSharding], mesh: Mesh) -> Any:
    """The sharding of every leaf of a `TrainState` of arrays or shapes.

    A leaf of the optimizer's state or the averages whose path ends in a parameter's, and which has its shape, lies as that
    parameter; all else (clocks, keys, statistics, factored moments) is whole on every device.

    Args:
      state: of `jaxft.train.create_state`.
      params: of `param_shardings`.
      mesh: theirs.
    """
    flat, shapes = tree.flatten(params), tree.flatten(state.params)

    def placed(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        owner = owner_of(path, leaf, shapes)
        return replicated(mesh) if owner is None else flat[owner]

    return jax.tree_util.tree_map_with_path(placed, state)


def owner_of(path: tuple[Any, ...], leaf: Any, params: Mapping[str, Any]) -> str | None:
    """The parameter that a leaf of a `TrainState` goes with: its path ends in the parameter's, and it has its shape.

    Args:
      path, leaf: of `jax.tree_util`.
      params: arrays or shapes by '/' path.
    """
    names = [str(entry.key) if isinstance(entry, jax.tree_util.DictKey) else "" for entry in path]
    for start in range(len(names)):
        name = "/".join(names[start:])
        if name in params and params[name].shape == leaf.shape:
            return name
    return None


def unsplit(params: Params, shardings: Any) -> list[str]:
    """Paths of parameters of at least `FLOOR` elements that are whole on every device, though `fsdp` is more than one."""
    placed = tree.flatten(shardings)
    return [
        path
        for path, leaf in tree.flatten(params).items()
        if placed[path].mesh.shape["fsdp"] > 1 and np.prod(leaf.shape) >= FLOOR and placed[path].is_fully_replicated
    ]
