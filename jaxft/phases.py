"""The phases of a run: stretches of steps, each with its own mask and optimizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from jaxft import tree
from jaxft.config import Clock, call
from jaxft.errors import JaxftError
from jaxft.optim import make_optimizer
from jaxft.optim.methods import METHODS
from jaxft.optim.rates import default_lr
from jaxft.optim.schedules import Plateau, Schedule, make_plateau
from jaxft.tuning import ADAPTER_TERMS, ADAPTERS, FreezeSpec, Group, keep_statistics, layerwise_groups, make_mask
from jaxft.typing import ApplyFn, Mask, Params


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of steps [start, stop) with its own mask and optimizer. The schedule counts from `start`.

    Attributes:
      lr: the peak rate; `lr_source` says where it is from, "" where the config gives it.
      plateau: what lowers the rate after evaluations, where the schedule is of that kind.
      keeps: moments go on from the phase before, of the leaves that `generations` gives to earlier phases.
      generations: the phase that the moments of each trained leaf began in, by '/' path.
      statistics_stay: BatchNorms normalise with their running statistics, whatever of them trains.
      notes: lines for the user.
    """

    name: str
    start: int
    stop: int
    mask: Mask
    tx: optax.GradientTransformation
    schedule: Schedule
    groups: tuple[Group, ...] | None
    lr: float
    lr_source: str
    plateau: Plateau | None
    keeps: bool
    generations: Mapping[str, str]
    statistics_stay: bool = False
    notes: tuple[str, ...] = ()

    def network(self, apply: ApplyFn) -> ApplyFn:
        """The network as it is trained."""
        return keep_statistics(apply) if self.statistics_stay else apply

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


@dataclasses.dataclass(frozen=True)
class _Before:
    """What a phase has to know of the one before: its optimizer, but for rate and decay, and when moments began."""

    optimizer: tuple[Any, ...] | None
    generations: Mapping[str, str]


def make_phases(
    config: ConfigDict, clock: Clock, params: Params, stages: Mapping[str, tuple[str, ...]], *, family: str
) -> list[Phase]:
    """The phases of a config for a network of these parameters (arrays or shapes), stages and family."""
    phases: list[Phase] = []
    start = 0
    before: _Before | None = None
    new = new_leaves(tree.paths(params), stages)
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
        _check(settings, config, where)
        lr, source = _rate(settings, mask, new, family, bool(config.model.pretrained))
        keeps = settings.pop("keep_moments")
        now, notes = _generations(name, settings, mask, before if keeps else None)
        plateau = make_plateau(
            settings["schedule"], settings["schedule_options"], mode=config.train.mode, min_lr=settings["end_lr"]
        )
        tx, schedule, groups = _optimizer(
            {**settings, "lr": lr}, clock, params, stages, mask, length, where, new, now.generations
        )
        if spec.statistics_stay:
            notes = (*notes, "BatchNorms use their running statistics, which stay")
        phases.append(
            Phase(
                name=name,
                start=start,
                stop=start + length,
                mask=mask,
                tx=tx,
                schedule=schedule,
                groups=groups,
                lr=lr,
                lr_source=source,
                plateau=plateau,
                keeps=keeps,
                generations=now.generations,
                statistics_stay=spec.statistics_stay,
                notes=notes,
            )
        )
        start, before = start + length, now
    if not phases:
        raise JaxftError("config.phases has no phase of at least one step")
    return phases


def new_leaves(paths: Sequence[str], stages: Mapping[str, tuple[str, ...]]) -> list[str]:
    """'/' paths of what is not pretrained: the head, and adapters."""
    head = list(stages.values())[-1]
    return [path for path in paths if path.startswith(f"{ADAPTERS}/") or any(tree.matches(glob, path) for glob in head)]


def _check(settings: Mapping[str, Any], config: ConfigDict, where: str) -> None:
    """What fits by itself, but not to the rest of the config."""
    method = METHODS.get(settings["name"])
    for key in ("ema_decay", "swa_start") if method is not None and method.free else ():
        if config.train[key] is not None:
            raise JaxftError(f"{where}: the optimizer '{settings['name']}' averages by itself: set config.train.{key} to None")
    if settings["l2_sp"] is not None and not config.model.pretrained:
        raise JaxftError(f"{where}: l2_sp pulls to pretrained values, and config.model.pretrained is '': set l2_sp to None")


def _rate(settings: Mapping[str, Any], mask: Mask, new: list[str], family: str, pretrained: bool) -> tuple[float, str]:
    """The peak rate, and where it is from where the config does not give it."""
    if settings["lr"] is not None:
        return settings["lr"], ""
    name = settings["name"]
    if ":" not in name and name not in METHODS:
        return 1.0, ""  # make_optimizer says what is wrong with the name
    trained = {path for path, trains in tree.flatten(mask).items() if trains}
    none = not pretrained or trained <= {*new}
    part = "nothing that is pretrained" if pretrained and none else "fine-tuning" if pretrained else "random weights"
    return default_lr(name, family, new=none), f"the usual one of {name}, {family}, {part}"


def _generations(name: str, settings: Mapping[str, Any], mask: Mask, before: _Before | None) -> tuple[_Before, tuple[str, ...]]:
    """When the moments of each trained leaf began: now, or with the first of the phases that it has trained in without a break.

    They go on only under the same optimizer with the same settings, but for rate, schedule, decay and clipping.
    """
    method = METHODS.get(settings["name"])
    own = tuple((key, repr(settings[key])) for key in ("name", "momentum", "nesterov", "b1", "b2", "eps", "options"))
    cycled = settings["schedule_options"].get("cycle_momentum")  # by the step of its own phase
    optimizer = own if method is not None and not method.free and not cycled else None
    same = before is not None and optimizer is not None and optimizer == before.optimizer
    earlier = before.generations if before is not None and same else {}
    trained = [path for path, trains in tree.flatten(mask).items() if trains]
    found = {path: earlier.get(path, name) for path in trained}
    now, kept = _Before(optimizer, found), len({*trained} & {*earlier})
    if before is None:
        return now, ()
    if kept:
        return now, (f"moments of the optimizer go on for {kept} of {len(trained)} arrays, the others begin",)
    why = "nothing of the phase before trains on" if same else "its settings are others"
    if optimizer is None:
        why = f"the moments of '{settings['name']}' are not kept"
    if cycled:
        why = "its momentum is a function of the phase's step"
    return now, (f"the optimizer begins anew: {why}",)


def _optimizer(
    settings: dict[str, Any],
    clock: Clock,
    params: Params,
    stages: Mapping[str, tuple[str, ...]],
    mask: Mask,
    length: int,
    where: str,
    new: list[str],
    generations: Mapping[str, str],
) -> tuple[optax.GradientTransformation, Schedule, tuple[Group, ...] | None]:
    settings = dict(settings)
    warmup = clock.steps(settings.pop("warmup"), f"{where}.optim.warmup")
    step_every = settings.pop("step_every")
    every = settings.pop("decay_norms_and_biases")
    groups: tuple[Group, ...] | None = (Group("all", ("**",)),) if every else None
    rates = {key: settings.pop(key) for key in ("layer_decay", "stage_lr")}
    if any(rates.values()):
        groups = layerwise_groups(params, stages, **rates, groups=groups)
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
        head=new,
        generations=generations,
    )
    return tx, schedule, groups
