"""The parameter table: what there is, what is trained, how fast, and whether it decays."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jaxft import tree
from jaxft.columns import aligned
from jaxft.tuning.groups import Group, assign
from jaxft.typing import Mask, Params


@dataclasses.dataclass(frozen=True)
class Row:
    """A leaf, or a stage's leaves together (then `shape` is None)."""

    name: str
    shape: tuple[int, ...] | None
    count: int
    trained: int
    lr_scale: str
    weight_decay: str


def rows(
    params: Params,
    mask: Mask,
    groups: Sequence[Group] | None,
    stages: Mapping[str, tuple[str, ...]],
    *,
    by_stage: bool = False,
) -> list[Row]:
    """One row a leaf, or one a stage."""
    flat, trained, groups_of = tree.flatten(params), tree.flatten(mask), assign(groups, params)
    if not by_stage:
        return [_row(path, [path], flat, trained, groups_of, tuple(leaf.shape)) for path, leaf in flat.items()]
    found = []
    for stage, patterns in stages.items():
        paths = [path for path in flat if any(tree.matches(pattern, path) for pattern in patterns)]
        found.append(_row(stage, paths, flat, trained, groups_of, None))
    return found


def _row(
    name: str,
    paths: Sequence[str],
    flat: Mapping[str, object],
    trained: Mapping[str, bool],
    groups_of: Mapping[str, Group],
    shape: tuple[int, ...] | None,
) -> Row:
    counts = {path: int(np.prod(flat[path].shape)) for path in paths}  # type: ignore[attr-defined]
    live = [groups_of[path] for path in paths if trained[path]]
    scales = sorted({group.lr_scale for group in live})
    decays = sorted({"yes" if group.weight_decay else "no" for group in live})
    return Row(
        name,
        shape,
        sum(counts.values()),
        sum(count for path, count in counts.items() if trained[path]),
        "/".join(f"{scale:g}" for scale in scales) or "-",
        "/".join(decays) or "-",
    )


def parameter_table(
    params: Params,
    mask: Mask,
    groups: Sequence[Group] | None,
    stages: Mapping[str, tuple[str, ...]],
    *,
    by_stage: bool = False,
    title: str = "stage",
) -> str:
    """The rows as aligned text, with the totals and the trainable share below; `title` is what `stages` are called."""
    found = rows(params, mask, groups, stages, by_stage=by_stage)
    cells = [(title if by_stage else "parameter", "shape", "count", "trained", "lr scale", "decay")]
    for row in found:
        shape = "" if row.shape is None else "x".join(map(str, row.shape))
        cells.append(
            (row.name, shape, f"{row.count:,}", f"{row.trained:,}" if row.trained else "frozen", row.lr_scale, row.weight_decay)
        )
    if by_stage:
        cells = [(name, *rest) for name, _, *rest in cells]  # type: ignore[misc]
    total, trained = sum(row.count for row in found), sum(row.trained for row in found)
    return "\n".join([*aligned(cells), f"{trained:,} of {total:,} parameters are trained ({trained / total:.2%})"])
