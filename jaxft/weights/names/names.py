"""How a library calls the parts of a network, and the table of rules that follows from it."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxft import tree
from jaxft.models import Model
from jaxft.weights.rules import CONV, DENSE, IDENTITY, Op, Rule, joined

#: Of torch's kernels, by their number of dimensions.
_LAYOUTS = {4: CONV, 2: DENSE}

#: Our leaves that torch calls otherwise.
_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


@dataclasses.dataclass(frozen=True)
class Names:
    """What one library calls the parts of a network. What is not listed has our own name, with dots.

    In all templates `{name}` stands for one piece of a path.

    Attributes:
      parts: our '/' path -> the foreign dotted name; the first that fits counts. A path is that of a module, for all that lies
        in it, or of a leaf, whose foreign name is then given whole. Several foreign names are laid side by side: query, key
        and value.
      also: the same once more, or several times, for names that are read but never written.
      ops: our path of a leaf -> its layout, where it is not that of a convolution (a kernel in 4D) or of a dense layer (2D).
      ignored: foreign names that hold nothing of the network.
      constants: foreign names of what follows from the network's shape, and is ignored when read, but written.
      pixels: mean and deviation of pixels in 0..1 that files in these names want, where the network's own are others.
      layouts: number of dimensions -> layout of kernels that `ops` does not have; others are as ours.
    """

    parts: Mapping[str, str | tuple[str, ...]] = dataclasses.field(default_factory=dict)
    also: Mapping[str, str | tuple[str, ...]] | tuple[Mapping[str, str | tuple[str, ...]], ...] = ()
    ops: Mapping[str, Op] = dataclasses.field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    constants: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    pixels: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    layouts: Mapping[int, Op] = dataclasses.field(default_factory=lambda: _LAYOUTS)


@dataclasses.dataclass(frozen=True)
class TransformersConfig:
    """What the `config.json` of a network says in Hugging Face's transformers.

    Attributes:
      model_type, architecture: the kind of network, and the class that it is.
      fields: what tells it apart from others of its kind.
      others: what is written too, but not compared when a config is read: it acts in training only, or hardly at all.
      sized: pixels of an image's side -> what is written too for these.
      multiple: of which the side must be a multiple, else the network there computes something else.
    """

    model_type: str
    architecture: str
    fields: Mapping[str, Any]
    others: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sized: Callable[[int], Mapping[str, Any]] = lambda _: {}
    multiple: int = 1


@functools.lru_cache(maxsize=1024)
def _template(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template)
    text = "".join(re.escape(part) if index % 2 == 0 else f"(?P<{part}>[^/]+)" for index, part in enumerate(parts))
    return re.compile(f"{text}(?:/(?P<_rest>.+))?")


def _match(template: str, path: str) -> tuple[dict[str, str], str] | None:
    """(what stands for the names in a template, the rest of the path below it), or None."""
    if "{" not in template:  # tables without patterns have a line for each leaf
        below = path[len(template) :]
        return ({}, below[1:]) if path.startswith(template) and below[:1] in ("", "/") else None
    if match := _template(template).fullmatch(path):
        pieces = match.groupdict()
        return pieces, pieces.pop("_rest") or ""
    return None


def table(model: Model, names: Names) -> tuple[Rule, ...]:
    """One rule for every leaf of a network, one for each of the head's other kind, and one for each thing to ignore."""
    rules, late = [Rule(name, None) for name in names.ignored], []
    rules += [Rule(name, None, constant=value) for name, value in names.constants.items()]
    dimensions = {path: len(leaf.shape) for path, leaf in tree.flatten(model.variables).items()}
    for path, ndim in {**dimensions, **_other_heads(model, dimensions)}.items():
        own = path.partition("/")[2]
        sources = _sources(own, names.parts) or (_dotted(own),)
        op = next((op for template, op in names.ops.items() if _match(template, own)), None)
        if op is None:
            op = names.layouts.get(ndim, IDENTITY) if own.endswith("/kernel") else IDENTITY
            op = joined(len(sources), op) if len(sources) > 1 else op
        rules.append(_rule(sources, path, op))
        for parts in (names.also,) if isinstance(names.also, Mapping) else names.also:
            if other := _sources(own, parts):
                late.append(_rule(other, path, op))
        if path.startswith("batch_stats/") and path.endswith("/var"):
            rules += [
                Rule(source.replace("running_var", "num_batches_tracked"), None)
                for source in sources
                if source.endswith(".running_var")
            ]
    return (*rules, *late)


def _other_heads(model: Model, dimensions: Mapping[str, int]) -> dict[str, int]:
    """Leaves that the head would have if it were of the other kind ("linear", "mlp"), as it may be in a file."""
    found: dict[str, int] = {}
    for head in model.stages["head"]:
        path = f"params/{head}"
        if f"{path}/kernel" in dimensions or f"{path}/out/kernel" in dimensions:
            for part in (path, f"{path}/hidden", f"{path}/out"):
                found |= {f"{part}/kernel": 2, f"{part}/bias": 1}
    return {path: ndim for path, ndim in found.items() if path not in dimensions}


def _rule(sources: tuple[str, ...], path: str, op: Op) -> Rule:
    return Rule(sources[0] if len(sources) == 1 else sources, path, op)


def _sources(own: str, parts: Mapping[str, str | tuple[str, ...]]) -> tuple[str, ...] | None:
    if own in parts and "{" not in own:
        parts = {own: parts[own]}
    for template, foreign in parts.items():
        if match := _match(template, own):
            pieces, rest = match
            names = (foreign,) if isinstance(foreign, str) else foreign
            return tuple(name.format(**pieces) + (f".{_dotted(rest)}" if rest else "") for name in names)
    return None


def _dotted(path: str) -> str:
    *modules, leaf = path.split("/")
    return ".".join([*modules, _LEAVES.get(leaf, leaf)])
