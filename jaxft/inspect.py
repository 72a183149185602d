"""What a config would do, told before it is done: parameters, what trains, cost, memory, preprocessing."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxft import tree
from jaxft.config import check_config
from jaxft.explain import compile_step
from jaxft.explain.collectives import collectives
from jaxft.explain.holdings import describe as who_holds_what
from jaxft.explain.step import missing_devices, sizes_of_mesh
from jaxft.explain.table import sent
from jaxft.inputs import features_of
from jaxft.parallel import peak_bytes
from jaxft.phases import Phase
from jaxft.plan import Plan, make_plan
from jaxft.tuning import layers, parameter_table


def inspect_config(config: ConfigDict, *, every_parameter: bool = False) -> str:
    """Describes a run without training: nothing is written.

    Returns:
      Text: data, network, preprocessing; for each phase what trains, the optimizer's memory, which part of it all a device of
      the config's mesh holds, and FLOPs, bytes and collectives of the compiled training step on the devices present.
    """
    check_config(config)
    plan = make_plan(config)
    splits, model, pre = plan.splits, plan.model, plan.model.preprocessing
    sizes = ", ".join(
        f"{len(part)} {name}" for name, part in (("train", splits.train), ("val", splits.val), ("test", splits.test)) if part
    )
    lines = [
        f"data           {config.data.source}: {sizes}"
        + (f"; {len(splits.class_names)} classes" if splits.class_names else ""),
        f"network        {model.name}, {tree.count(plan.params):,} parameters, {tree.nbytes(plan.params) / 1e6:.1f} MB",
        f"weights        {plan.weights}",
        f"preprocessing  resize {'both sides to ' if pre.squash else ''}{pre.resize}, crop {pre.size}, {pre.interpolation}, "
        f"mean {_few(pre.mean)}, std {_few(pre.std)}",
        f"devices        {jax.device_count()} x {jax.devices()[0].device_kind}",
        *splits.notes,
    ]
    for phase in plan.phases:
        lines += ["", *_describe(plan, phase, config, every_parameter)]
    return "\n".join(lines)


def _few(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"


def _describe(plan: Plan, phase: Phase, config: ConfigDict, every_parameter: bool) -> list[str]:
    trainable, _ = tree.split(plan.params, phase.mask)
    share = tree.count(trainable) / tree.count(plan.params)
    opt_state = jax.eval_shape(phase.tx.init, trainable)
    opt_bytes = sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(opt_state))
    mesh = sizes_of_mesh(config.parallel.mesh)
    return [
        f"{phase.name}: steps {phase.start} to {phase.stop}",
        *([line] if (line := features_of(plan, phase, config)[1]) else []),
        f"learning rate  {phase.lr:g}{f', {phase.lr_source}' if phase.lr_source else ''}",
        f"trained        {tree.count(trainable):,} parameters ({share:.2%})",
        f"optimizer      {opt_bytes / 1e6:.2f} MB of state",
        *_step(plan, phase, config),
        *_table(plan, phase, every_parameter),
        *(["", *who_holds_what(plan, phase, config, mesh, every_parameter=every_parameter)] if mesh.size > 1 else []),
    ]


def _table(plan: Plan, phase: Phase, every_parameter: bool) -> list[str]:
    """One row a stage; one a layer, where rates differ from layer to layer."""
    by_layer = len({group.lr_scale for group in phase.groups or ()}) > 1
    parts = layers(plan.params, plan.model.stages) if by_layer else plan.model.stages
    title = "layer" if by_layer else "stage"
    text = parameter_table(plan.params, phase.mask, phase.groups, parts, by_stage=not every_parameter, title=title)
    return text.splitlines()


def _step(plan: Plan, phase: Phase, config: ConfigDict) -> list[str]:
    if line := missing_devices(config.parallel.mesh):
        return [f"step           not compiled: {line}"]
    compiled = compile_step(plan, phase, config)
    cost: Any = compiled.cost_analysis() or {}
    found = collectives(compiled.as_text())
    return [
        f"step           {cost.get('flops', 0) / 1e9:.2f} GFLOP, {_bytes(peak_bytes(compiled))} on each device",
        *([f"collectives    {sent(found)} on each device, in a step"] if found else []),
    ]


def _bytes(count: int | None) -> str:
    return "memory unknown" if count is None else f"{count / 1e6:.0f} MB"
