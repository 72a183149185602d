"""What to change where a step does not fit, each change compiled and measured, none guessed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import jax
from ml_collections import ConfigDict

from jaxft.config import call
from jaxft.explain.step import compile_step
from jaxft.models import build
from jaxft.parallel import Limit, fits, memory_of
from jaxft.plan import Phase, Plan, make_phases


@dataclasses.dataclass(frozen=True)
class Remedy:
    """A change of the config, what the step then needs on each device, and whether that fits."""

    change: str
    peak: int
    fits: bool


def changed(config: ConfigDict, **changes: object) -> ConfigDict:
    """A copy of the config with `section__key=value` changes."""
    copy = config.copy_and_resolve_references()
    with copy.ignore_type():
        for name, value in changes.items():
            section, key = name.split("__")
            copy[section][key] = value
    return copy


def variant(plan: Plan, config: ConfigDict, name: str) -> tuple[Plan, Phase]:
    """The plan, from shapes, and the phase `name` under a changed config of the same data and weights."""
    section = {key: value for key, value in config.model.to_dict().items() if key != "pretrained"}
    made = call(build, section, "config.model", num_classes=plan.model.num_classes)
    model = dataclasses.replace(made, preprocessing=plan.model.preprocessing)
    params, model_state = model.shapes
    phases = make_phases(config, plan.clock, params, model.stages)
    other = dataclasses.replace(plan, model=model, params=params, model_state=model_state, phases=tuple(phases))
    return other, next(phase for phase in phases if phase.name == name)


def find_remedies(plan: Plan, config: ConfigDict, name: str, limit: Limit) -> tuple[Remedy, ...]:
    """Accumulation (the fewest microbatches that fit), recomputation, computing in bfloat16; and all, if none is enough."""
    found: list[Remedy] = []

    def add(**changes: object) -> bool:
        other = changed(config, **changes)
        memory = memory_of(compile_step(*variant(plan, other, name), other))
        if memory is None:
            return False
        keys = " ".join(f"--config.{key.replace('__', '.')}={value}" for key, value in changes.items())
        found.append(Remedy(keys, memory.peak, fits(memory, limit)))
        return found[-1].fits

    steps = list(_microbatches(config))
    for number in steps:
        if add(train__accum_steps=number):
            break
        if number != steps[-1]:
            found.pop()  # told is the first that fits, or the last there is
    others: dict[str, object] = {}
    if config.model.get("remat") is False:
        others["model__remat"] = True
    if config.model.dtype == "float32":
        others["model__dtype"] = "bfloat16"
    for key, value in others.items():
        add(**{key: value})
    if not any(remedy.fits for remedy in found) and len(found) > 1:
        add(**({"train__accum_steps": steps[-1]} if steps else {}), **others)
    return tuple(found)


def _microbatches(config: ConfigDict) -> Iterator[int]:
    """Numbers of microbatches beyond the config's that leave each device the same whole number of examples."""
    for number in range(config.train.accum_steps + 1, config.input.batch_size + 1):
        if config.input.batch_size % number == 0 and config.input.batch_size // number % jax.device_count() == 0:
            yield number
