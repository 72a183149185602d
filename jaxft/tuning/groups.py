"""Parameter groups: which leaves have another learning rate, which are not decayed. First match wins, nothing is left over."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from jaxft import tree
from jaxft.errors import JaxftError
from jaxft.typing import Params


@dataclasses.dataclass(frozen=True)
class Group:
    """Leaves named by globs, their learning rate relative to the schedule's, and whether weight decay acts on them."""

    name: str
    patterns: tuple[str, ...]
    lr_scale: float = 1.0
    weight_decay: bool = True


#: Leaves of more dimensions that are no weights of a layer: what timm's networks name in `no_weight_decay`.
_EMBEDDINGS = {
    "pos_embed",
    "cls_token",
    "reg_token",
    "dist_token",
    "mask_token",
    "relative_position_bias_table",
    "cpb_mlp",
    "logit_scale",
}


def default_groups(params: Params) -> tuple[Group, ...]:
    """Weight decay on matrices and kernels; none on norms, biases (leaves of at most one dimension) and embeddings."""
    flat = tree.flatten(params)
    small = tuple(
        path
        for path, leaf in flat.items()
        if len(leaf.shape) <= 1 or path.endswith("/bias") or _EMBEDDINGS & {*path.split("/")}
    )
    groups = (Group("norms, biases, embeddings", small, weight_decay=False),) if small else ()
    return (*groups, Group("kernels", ("**",)))


def assign(groups: Sequence[Group] | None, params: Params) -> dict[str, Group]:
    """The group of every leaf: the first with a pattern that names it. None is `default_groups`.

    Args:
      groups: in order of precedence.
      params: the FULL parameters, arrays or abstract, so that a group of frozen leaves is no error.

    Raises:
      JaxftError: a leaf in no group, or a pattern that names no leaf at all.
    """
    paths = tree.paths(params)
    if groups is None:
        groups = default_groups(params)
    found: dict[str, Group] = {}
    for group in groups:
        for pattern in group.patterns:
            try:
                named = [pattern] if pattern in found or pattern in paths else tree.find(pattern, paths)
            except JaxftError as error:
                raise JaxftError(f"parameter group '{group.name}': {error}") from None
            for path in named:
                found.setdefault(path, group)
    if left := [path for path in paths if path not in found]:
        raise JaxftError(
            f"{len(left)} parameters are in no group, '{left[0]}' first: end the groups with Group('rest', ('**',))"
        )
    return found
