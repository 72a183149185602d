"""The phases of a run: stretches of steps, each with its own mask and optimizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from jaxft.config import Clock, call
from jaxft.errors import JaxftError
from jaxft.optim import Schedule, make_optimizer
from jaxft.tuning import ADAPTER_TERMS, FreezeSpec, Group, make_mask
from jaxft.typing import Mask, Params


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of steps [start, stop) with its own mask and optimizer. The schedule counts from `start`."""

    name: str
    start: int
    stop: int
    mask: Mask
    tx: optax.GradientTransformation
    schedule: Schedule
    groups: tuple[Group, ...] | None

    @property
    def trained(self) -> list[str]:
        """'/' paths of the trained leaves, in the order of `jax.tree.leaves`."""
        flat, _ = jax.tree_util.tree_flatten_with_path(self.mask)
        return [jax.tree_util.keystr(path, simple=True, separator="/") for path, trained in flat if trained]


def adapter_of(config: ConfigDict) -> str:
    """The kind of adapter that phases of a config train; "" for none.

    Raises:
      JaxftError: more than one, or options for none.
    """
    terms = [term for section in config.phases.values() for term in FreezeSpec.parse(section.train, section.freeze or ()).train]
    kinds = sorted({term for term in terms if term in ADAPTER_TERMS})
    if len(kinds) > 1:
        raise JaxftError(f"the phases of a run train one kind of adapter, not {' and '.join(kinds)}")
    if not kinds and config.adapter.options:
        raise JaxftError(
            "config.adapter.options is given, and no phase trains an adapter: "
            f"set config.phases.{next(iter(config.phases))}.train='lora+head'"
        )
    return kinds[0] if kinds else ""


def make_phases(config: ConfigDict, clock: Clock, params: Params, stages: Mapping[str, tuple[str, ...]]) -> list[Phase]:
    """The phases of a config for a network of these parameters (arrays or shapes) and stages."""
    phases: list[Phase] = []
    start = 0
    for name in sorted(config.phases):
        section = config.phases[name]
        where = f"config.phases.{name}"
        length = clock.steps(section.length, f"{where}.length")
        if length == 0:
            continue
        spec = FreezeSpec.parse(section.train, section.freeze or ())
        mask = make_mask(spec, params, stages)
        settings = {**config.optim.to_dict(), **section.optim.to_dict()}
        if section.lr is not None:
            settings["lr"] = section.lr
        tx, schedule, groups = _optimizer(settings, clock, params, mask, length, where)
        phases.append(Phase(name, start, start + length, mask, tx, schedule, groups))
        start += length
    if not phases:
        raise JaxftError("config.phases has no phase of at least one step")
    return phases


def _optimizer(
    settings: dict[str, Any], clock: Clock, params: Params, mask: Mask, length: int, where: str
) -> tuple[optax.GradientTransformation, Schedule, tuple[Group, ...] | None]:
    settings = dict(settings)
    warmup = clock.steps(settings.pop("warmup"), f"{where}.optim.warmup")
    step_every = settings.pop("step_every")
    groups = (Group("all", ("**",)),) if settings.pop("decay_norms_and_biases") else None
    tx, schedule = call(
        make_optimizer,
        settings,
        f"{where}.optim",
        params=params,
        mask=mask,
        total_steps=length,
        warmup_steps=warmup,
        step_every=None if step_every is None else clock.steps(step_every, f"{where}.optim.step_every"),
        groups=groups,
    )
    return tx, schedule, groups
