"""What to change where a step does not fit, each change compiled and measured, none guessed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxft.config import call
from jaxft.explain.roofline import homes
from jaxft.models import build
from jaxft.parallel import batch_parts
from jaxft.phases import Phase, make_phases
from jaxft.plan import Plan


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
    section = {key: value for key, value in config.model.to_dict().items() if key not in ("pretrained", "outputs", "zero_shot")}
    made = call(build, section, "config.model", num_classes=plan.model.num_classes)
    model = dataclasses.replace(made, preprocessing=plan.model.preprocessing)
    params, model_state = model.shapes
    phases = make_phases(config, plan.clock, params, model.stages, family=model.architecture.family)
    other = dataclasses.replace(plan, model=model, params=params, model_state=model_state, phases=tuple(phases))
    return other, next(phase for phase in phases if phase.name == name)


def candidates(config: ConfigDict, mesh: Mesh) -> tuple[list[int], dict[str, object]]:
    """What may help: numbers of microbatches beyond the config's that leave each device the same whole number of examples; and
    other changes, as of `changed`."""
    parts, size = batch_parts(mesh), config.input.batch_size
    steps = range(config.train.accum_steps + 1, size + 1)
    others: dict[str, object] = {}
    if not config.model.remat:
        others["model__remat"] = "all"
    if config.model.dtype == "float32":
        others["model__dtype"] = "bfloat16"
    if mesh.shape["data"] == mesh.size > 1:  # every device has everything: it need not
        far = len(set(homes(mesh)))  # what is split is gathered in every step: by neighbours
        others["parallel__mesh"] = f"{far}x{mesh.size // far}x1"
    return [number for number in steps if size % number == 0 and size // number % parts == 0], others


def written(changes: Mapping[str, object]) -> str:
    """Changes of `changed` as they stand in a command."""
    return " ".join(f"--config.{key.replace('__', '.')}={value}" for key, value in changes.items())


def find_remedies(
    plan: Plan,
    config: ConfigDict,
    name: str,
    *,
    mesh: Mesh,
    needs: Callable[[Plan, Phase, ConfigDict], int | None],
    enough: Callable[[int], bool],
) -> tuple[Remedy, ...]:
    """Accumulation (the fewest microbatches that fit), recomputation, computing in bfloat16, splitting parameters; and all, if
    none is enough.

    Args:
      plan, config: of the run.
      name: of the phase.
      mesh: what the config's step was compiled for.
      needs: bytes on each device of a phase's step under a changed config; None where that is not known.
      enough: whether a device has so many.
    """
    found: list[Remedy] = []

    def add(**changes: object) -> bool:
        other = changed(config, **changes)
        peak = needs(*variant(plan, other, name), other)
        if peak is None:
            return False
        found.append(Remedy(written(changes), peak, enough(peak)))
        return found[-1].fits

    steps, others = candidates(config, mesh)
    for number in steps:
        if add(train__accum_steps=number):
            break
        if number != steps[-1]:
            found.clear()  # told is the first that fits, or the last there is
    for key, value in others.items():
        add(**{key: value})
    if not any(remedy.fits for remedy in found) and len(found) > 1:
        add(**({"train__accum_steps": steps[-1]} if steps else {}), **others)
    return tuple(found)
