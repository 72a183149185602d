"""`explain_step`: for a config, what the compiled step of each phase does, beside the same step with everything trained."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxft import tree
from jaxft.config import check_config
from jaxft.errors import JaxftError, near
from jaxft.explain.actual import actual_peak
from jaxft.explain.remedies import Remedy, find_remedies, variant
from jaxft.explain.step import (
    Cost,
    abstract_arguments,
    compile_step,
    cost_of,
    judge_step,
    missing_devices,
    step_needs,
    step_ops,
)
from jaxft.explain.verdict import Verdict
from jaxft.parallel import Limit, device_limit, fits, make_mesh, peak_bytes
from jaxft.parallel.memory import SHARE
from jaxft.phases import Phase
from jaxft.plan import Plan, make_plan


@dataclasses.dataclass(frozen=True)
class PhaseExplanation:
    """What the step of a phase does.

    Attributes:
      name: of the phase.
      trained, parameters: how many parameters are trained, and how many there are.
      step: what it costs.
      full: what the same step costs with everything trained; None where everything is.
      forward_xla_flops: XLA's count of FLOPs for the forward pass and the loss, comparable with `step.xla_flops`.
      verdict: whether frozen backward work is left.
      limit: what each device has, where that is known.
      fits: whether the step takes at most 90 % of it; None where either is unknown.
      remedies: where it does not: what to change, and what that brings.
      actual_peak: bytes on each device that a run of the step took, where one was asked for.
    """

    name: str
    trained: int
    parameters: int
    step: Cost
    full: Cost | None
    forward_xla_flops: float
    verdict: Verdict
    limit: Limit | None
    fits: bool | None
    remedies: tuple[Remedy, ...]
    actual_peak: int | None


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What a config's steps do; reads as a table.

    Attributes:
      model: name of the network.
      size, batch_size, accum_steps, dtype: of the step.
      devices, device_kind: which it was compiled for.
      phases: in their order.
    """

    model: str
    size: int
    batch_size: int
    accum_steps: int
    dtype: str
    devices: int
    device_kind: str
    phases: tuple[PhaseExplanation, ...]

    def to_json(self) -> str:
        """All figures, and those derived from them that the table shows."""
        found: dict[str, Any] = dataclasses.asdict(self)
        for phase, values in zip(self.phases, found["phases"], strict=True):
            values["verdict"]["clean"] = phase.verdict.clean
            for cost, name in ((phase.step, "step"), (phase.full, "full")):
                if cost is not None and cost.memory is not None:
                    values[name]["memory"]["peak"] = cost.memory.peak
        return json.dumps(found, indent=2)

    def __str__(self) -> str:
        from jaxft.explain.table import describe

        return describe(self)


def explain_step(
    config: ConfigDict, *, phase: str | None = None, memory: float | None = None, run: bool = False
) -> Explanation:
    """Compiles the training step of each phase from shapes alone and says what it does. No weights are read.

    Args:
      config: see `jaxft.config.default_config`. The data must be there: it says how many classes there are.
      phase: only this one.
      memory: bytes each device has, instead of what the devices here have: a plan for other ones.
      run: run each step twice, on made-up numbers, and measure the memory it takes.

    Raises:
      JaxftError: no such phase, or anything in the config or the data that does not fit.
    """
    check_config(config)
    if line := missing_devices(config.parallel.mesh):
        raise JaxftError(line)
    plan = make_plan(config, weights=False)
    limit = device_limit() if memory is None else Limit(int(memory), certain=True)
    return Explanation(
        model=plan.model.name,
        size=plan.model.preprocessing.size,
        batch_size=config.input.batch_size,
        accum_steps=config.train.accum_steps,
        dtype=config.model.dtype,
        devices=jax.device_count(),
        device_kind=jax.devices()[0].device_kind,
        phases=tuple(_explain(plan, known, config, limit, run) for known in chosen_phases(plan, phase)),
    )


def chosen_phases(plan: Plan, name: str | None) -> list[Phase]:
    """The phase of this name, or all.

    Raises:
      JaxftError: there is none.
    """
    names = [known.name for known in plan.phases]
    if name is not None and name not in names:
        raise JaxftError(f"the config has no phase '{name}'{near(name, names)}; its phases are {', '.join(names)}")
    return [known for known in plan.phases if name in (None, known.name)]


def _explain(plan: Plan, phase: Phase, config: ConfigDict, limit: Limit | None, run: bool) -> PhaseExplanation:
    ops, xla_flops = step_ops(plan, phase, config)
    needs, forward_xla_flops = step_needs(plan, phase, config)
    compiled = compile_step(plan, phase, config)
    text = compiled.as_text()
    cost = cost_of(compiled, ops, xla_flops, text=text)
    actual = actual_peak(compiled, *abstract_arguments(plan, phase, config)) if run else None
    trained, parameters = tree.count(tree.split(plan.params, phase.mask)[0]), tree.count(plan.params)
    enough = None if cost.memory is None or limit is None else fits(cost.memory, limit)
    return PhaseExplanation(
        name=phase.name,
        trained=trained,
        parameters=parameters,
        step=cost,
        full=None if trained == parameters else _full_cost(plan, phase, config),
        forward_xla_flops=forward_xla_flops,
        verdict=judge_step(phase, ops, needs, text),
        limit=limit,
        fits=enough,
        remedies=_remedies(plan, config, phase.name, limit) if enough is False and limit else (),
        actual_peak=actual,
    )


def _remedies(plan: Plan, config: ConfigDict, name: str, limit: Limit) -> tuple[Remedy, ...]:
    return find_remedies(
        plan,
        config,
        name,
        mesh=make_mesh(config.parallel.mesh),
        needs=lambda plan, phase, config: peak_bytes(compile_step(plan, phase, config)),
        enough=lambda peak: peak <= SHARE * limit.nbytes,
    )


def _full_cost(plan: Plan, phase: Phase, config: ConfigDict) -> Cost:
    """Of the same step, with the same optimizer, everything trained."""
    other = config.copy_and_resolve_references()
    other.phases[phase.name].train, other.phases[phase.name].freeze = "full", ""
    plan, phase = variant(plan, other, phase.name)
    ops, xla_flops = step_ops(plan, phase, other)
    compiled = compile_step(plan, phase, other)
    return cost_of(compiled, ops, xla_flops, text=compiled.as_text())
