"""Who holds what: of each parameter the part on a device, with what the optimizer and the averages keep of it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
from jax.sharding import NamedSharding
from ml_collections import ConfigDict

from jaxft import tree
from jaxft.columns import aligned
from jaxft.explain.step import Devices
from jaxft.explain.table import size
from jaxft.parallel import FLOOR, gigabytes, unsplit
from jaxft.parallel.rules import owner_of
from jaxft.phases import Phase
from jaxft.plan import Plan
from jaxft.states import abstract_state, param_places


@dataclasses.dataclass(frozen=True)
class Holding:
    """A parameter, or several together. Bytes.

    Attributes:
      name: its '/' path, or the name of a stage.
      count: elements of the whole.
      split: how it is split, in words.
      params, opt_state, ema: on each device.
      whole: of the three together, unsharded.
    """

    name: str
    count: int
    split: str
    params: int
    opt_state: int
    ema: int
    whole: int

    @property
    def nbytes(self) -> int:
        return self.params + self.opt_state + self.ema


def holdings(plan: Plan, phase: Phase, config: ConfigDict, mesh: Devices) -> tuple[list[Holding], Holding]:
    """One for each parameter, and one for what goes with none: statistics, clocks, the key, factored moments.

    Args:
      plan, phase, config: of the run.
      mesh: sizes are enough.
    """
    state: Any = abstract_state(plan, phase, config, mesh)  # type: ignore[arg-type]
    shapes = tree.flatten(state.params)
    held = {path: {"params": 0, "opt_state": 0, "ema": 0, "whole": 0} for path in shapes}
    rest = {"params": 0, "opt_state": 0, "ema": 0, "whole": 0}
    for place, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        part = place[0].name
        owner = owner_of(place, leaf, shapes) if part in ("params", "opt_state", "ema") else None
        entry = rest if owner is None else held[owner]
        each = leaf.dtype.itemsize
        entry[part if part in entry else "params"] += math.prod(leaf.sharding.shard_shape(leaf.shape)) * each
        entry["whole"] += math.prod(leaf.shape) * each
    found = [
        Holding(path, math.prod(leaf.shape), _split(leaf.sharding, leaf.shape), **held[path]) for path, leaf in shapes.items()
    ]
    return found, Holding("statistics, clocks", 0, "whole", **rest)


def _split(sharding: NamedSharding, shape: tuple[int, ...]) -> str:
    """ "tensor: outputs; fsdp: dimension 2 of 4"."""
    rank = len(shape)
    names = {rank - 1: "outputs", rank - 2: "inputs"}
    parts = []
    for axis, name in enumerate(sharding.spec):
        if name is not None:
            parts.append(f"{name}: {names[axis] if name == 'tensor' and axis in names else f'dimension {axis + 1} of {rank}'}")
    return "; ".join(sorted(parts, reverse=True)) or "whole"


def by_stage(found: list[Holding], plan: Plan) -> list[Holding]:
    """The parameters of each stage together; `split` says which share of their elements is split how."""
    grouped = []
    for stage, patterns in plan.model.stages.items():
        inside = [one for one in found if any(tree.matches(pattern, one.name) for pattern in patterns)]
        grouped.append(_together(stage, inside))
    return grouped


def _together(name: str, inside: list[Holding]) -> Holding:
    count = sum(one.count for one in inside)
    shares: dict[str, int] = {}
    for one in inside:
        how = ", ".join(part.split(":")[0] for part in one.split.split("; "))
        shares[how] = shares.get(how, 0) + one.count
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    split = ordered[0][0] if len(ordered) == 1 else "; ".join(f"{how} {part / max(count, 1):.1%}" for how, part in ordered)
    sums = {key: sum(getattr(one, key) for one in inside) for key in ("params", "opt_state", "ema", "whole")}
    return Holding(name, count, split, **sums)


def describe(plan: Plan, phase: Phase, config: ConfigDict, mesh: Devices, *, every_parameter: bool) -> list[str]:
    """The table, its totals, and which large parameters stay whole though they need not."""
    found, rest = holdings(plan, phase, config, mesh)
    total = _together("total", [*found, rest])
    axes = ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    first = "parameter" if every_parameter else "stage"
    rows = [[first, "count", "on each device", "parameters", "optimizer", "averages", "unsplit"]]
    for one in [*(found if every_parameter else by_stage(found, plan)), rest, total]:
        split = "" if one is total else one.split
        rows.append([one.name, f"{one.count:,}" if one.count else "", split, *_sizes(one)])
    kept = unsplit(plan.params, param_places(plan, phase, config, mesh))  # type: ignore[arg-type]
    lines = [
        f"held           {gigabytes(total.nbytes)} on each device for {gigabytes(total.whole)} in all ({axes})",
        *aligned(rows, right=(1, 3, 4, 5, 6)),
    ]
    if kept:
        lines.append(f"whole on every device, though of {FLOOR:,} elements or more: {_few(kept)}")
    return lines


def _sizes(one: Holding) -> list[str]:
    return [size(held) if held else "-" for held in (one.params, one.opt_state, one.ema, one.whole)]


def _few(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more (--params shows all)" if len(names) > most else "")
