"""Rates that differ from layer to layer: the layers of a network, layer-wise decay of the rate, rates by stage."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from jaxft import tree
from jaxft.errors import JaxftError, near
from jaxft.tuning.freeze import ADAPTERS
from jaxft.tuning.groups import Group, assign
from jaxft.typing import Params

Stages = Mapping[str, tuple[str, ...]]

#: Below a part of a stage: the number of a block. What has none (a downsampling) belongs to the part's first block.
_BLOCK = re.compile(r"(?:blocks/)?(?:b|denselayer)?(\d+)/")

#: Parts between the last block and the head that go with that block; other ones go with the head.
_WITH_LAST_BLOCK = ("norm", "bn2", "conv_head")


def layers(params: Params, stages: Stages) -> dict[str, tuple[str, ...]]:
    """The layers of a network as timm's `param_groups_layer_decay` counts them: the stem, each block, the head.

    A norm after the last block, and EfficientNet's last convolution, go with that block; DenseNet's transitions with the block
    before; whatever else stands between blocks and head goes with the head. Adapters go with their modules.

    Args:
      params: the full parameters, arrays or abstract.
      stages: of the network, the head last.

    Returns:
      Name -> '/' paths of its leaves, in the order of the network; together all leaves, each once.
    """
    every = tree.paths(params)
    paths = [path for path in every if not path.startswith(f"{ADAPTERS}/")]
    found: dict[str, list[str]] = {}
    last = head = list(stages)[-1]
    later: list[str] = []
    for stage, parts in stages.items():
        for part in parts:
            own = [path for path in paths if tree.matches(part, path)]
            if stage == head:
                later += own
            elif stage == "neck":
                # A last convolution without a norm of its own, MobileNetV3's, is a part of the head.
                with_block = part in _WITH_LAST_BLOCK and not (part == "conv_head" and "bn2" not in parts)
                (found[last] if with_block else later).extend(own)
            elif stage == "stem":
                last = stage
                found.setdefault(stage, []).extend(own)
            elif "transition" in part:
                found[last] += own
            else:
                for name, block in _blocks(part, own).items():
                    last = name
                    found.setdefault(name, []).extend(block)
    found[head] = later
    modules = {path.rpartition("/")[0]: name for name, own in found.items() for path in own}
    for path in {*every} - {*paths}:
        module = path.removeprefix(f"{ADAPTERS}/").rpartition("/")[0]
        layer = next(name for other, name in modules.items() if f"{other}/".startswith(f"{module}/"))
        found[layer].append(path)
    return {name: tuple(own) for name, own in found.items()}


def _blocks(part: str, paths: Sequence[str]) -> dict[str, list[str]]:
    """A part's leaves by block, in their order; all of them together where it has no numbered blocks."""
    numbers = {}
    for path in paths:
        if number := _BLOCK.match(path.removeprefix(f"{part}/")):
            numbers[path] = int(number[1])
    first = min(numbers.values(), default=0)
    blocks: dict[int, list[str]] = {}
    for path in paths:
        blocks.setdefault(numbers.get(path, first), []).append(path)
    return {f"{part}/{number}" if numbers else part: blocks[number] for number in sorted(blocks)}


def parse_stage_lr(text: str, params: Params, stages: Stages) -> dict[str, float]:
    """Reads "stem:0.1, stage1:0.1, blocks/11/**:0.5": for every leaf what its rate is multiplied by, 1 where no term names it.

    Args:
      text: terms NAME:FACTOR; NAME is a stage or a glob over '/' paths. The first one that names a leaf counts.
      params, stages: of the network.

    Raises:
      JaxftError: a term that is none, or names nothing.
    """
    paths = tree.paths(params)
    found: dict[str, float] = {}
    for term in filter(None, (term.strip() for term in text.split(","))):
        name, _, number = (part.strip() for part in term.rpartition(":"))
        try:
            factor = float(number)
        except ValueError:
            factor = -1.0
        if not name or not 0 <= factor < float("inf"):
            raise JaxftError(f"stage_lr has '{term}': a term is written STAGE:FACTOR or GLOB:FACTOR, e.g. 'stem:0.1'")
        try:
            named = [path for pattern in stages.get(name, (name,)) for path in tree.find(pattern, paths)]
        except JaxftError as error:
            raise JaxftError(
                f"stage_lr: '{name}' is no stage{near(name, stages)}; the stages are {', '.join(stages)}; {error}"
            ) from None
        for path in named:
            found.setdefault(path, factor)
    return {path: found.get(path, 1.0) for path in paths}


def layerwise_groups(
    params: Params,
    stages: Stages,
    *,
    layer_decay: float | None = None,
    stage_lr: str = "",
    groups: Sequence[Group] | None = None,
) -> tuple[Group, ...]:
    """Parameter groups, by layer, with rates that differ.

    Layer i of L has `layer_decay ** (L - 1 - i)` of the rate (Clark et al., 2020; for networks that see: Bao et al., 2022),
    layers as in `layers`; `stage_lr` multiplies this.

    Args:
      params: the full parameters, arrays or abstract.
      stages: of the network.
      layer_decay: in (0, 1]; None is 1.
      stage_lr: see `parse_stage_lr`.
      groups: which of them decay, and further factors; None is `default_groups`.

    Raises:
      JaxftError: a factor out of its range, a term of `stage_lr` that names nothing.
    """
    if layer_decay is not None and not 0 < layer_decay <= 1:
        raise JaxftError(f"layer_decay is {layer_decay}: it must lie in (0, 1]; 0.65 to 0.85 is usual for transformers")
    given, by_stage = assign(groups, params), parse_stage_lr(stage_lr, params, stages)
    named = layers(params, stages)
    made = []
    for index, (name, own) in enumerate(named.items()):
        factor = 1.0 if layer_decay is None else layer_decay ** (len(named) - 1 - index)
        kinds: dict[tuple[float, bool], list[str]] = {}
        for path in own:
            kinds.setdefault((factor * by_stage[path] * given[path].lr_scale, given[path].weight_decay), []).append(path)
        made += [Group(name, tuple(paths), scale, decays) for (scale, decays), paths in kinds.items()]
    return tuple(made)
