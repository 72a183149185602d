"""A phase's training step from shapes alone: traced, compiled, counted. Nothing is read, drawn or run."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr
from jax.sharding import AbstractMesh, Mesh
from ml_collections import ConfigDict

from jaxft import tree
from jaxft.explain.collectives import Collective, collectives
from jaxft.explain.program import Needs, Op, backward_needs, live_ops, modules_of
from jaxft.explain.verdict import Verdict, judge_backward
from jaxft.features import DTYPES
from jaxft.inputs import features_of
from jaxft.ops import plain_ops
from jaxft.parallel import Memory, batch_sharding, check_batch_size, make_mesh, memory_of
from jaxft.parallel.mesh import fixed_sizes
from jaxft.phases import Phase
from jaxft.plan import Plan
from jaxft.states import abstract_state, jit_train_step
from jaxft.train import make_objective
from jaxft.typing import ApplyFn

#: Devices by their places, or only how many there are along each axis.
Devices = Mesh | AbstractMesh


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one training step costs.

    Attributes:
      flops: of convolutions and matrix products, all devices together, padding not counted: of the mathematics, the same in
        every lowering.
      recomputed: the part of `flops` that `jax.checkpoint` does a second time, unless the compiler undoes it.
      xla_flops: XLA's own count of everything in the same program before it is optimised. It counts more for the gradients of
        convolutions, whose padding it does not leave out.
      bytes_accessed: on each device, as XLA counts them for the compiled program; a loop's body once.
      memory: on each device, of the compiled program; None where the compiler does not say.
      collectives: between devices, of the compiled program.
    """

    flops: int
    recomputed: int
    xla_flops: float
    bytes_accessed: float
    memory: Memory | None
    collectives: tuple[Collective, ...]

    @property
    def sent(self) -> int:
        """Bytes of all collectives' results on a device."""
        return sum(collective.nbytes for collective in self.collectives)


def abstract_arguments(
    plan: Plan, phase: Phase, config: ConfigDict, mesh: Mesh | None = None, *, place: bool = True
) -> tuple[Any, dict[str, Any]]:
    """State and batch of a phase's step as shapes, with the run's shardings if `place`.

    Args:
      plan, phase, config: of the run.
      mesh: its devices may be ones to compile for and no more; None: the config's, of the devices present.
      place: with shardings.

    Raises:
      JaxftError: a batch that does not split over the devices.
    """
    mesh = mesh or make_mesh(config.parallel.mesh)
    check_batch_size(config.input.batch_size // config.train.accum_steps, mesh, "batch_size / accum_steps")
    state = abstract_state(plan, phase, config, mesh if place else None)
    size, batch = plan.augment.window.side(plan.model.preprocessing.size), config.input.batch_size
    label = plan.splits.train.labels
    image: tuple[tuple[int, ...], Any] = ((size, size, plan.model.in_channels), jnp.uint8)
    features, _ = features_of(plan, phase, config)
    if features is not None:
        image = (features.prefix.shape, DTYPES[features.dtype])
    example = {
        "image": jax.ShapeDtypeStruct((batch, *image[0]), image[1]),
        "label": jax.ShapeDtypeStruct((batch, *label.shape[1:]), label.dtype),
        "mask": jax.ShapeDtypeStruct((batch,), jnp.float32),
        "index": jax.ShapeDtypeStruct((batch,), jnp.int32),
        "shown": jax.ShapeDtypeStruct((batch,), jnp.int32),
    }
    if plan.strong is not None:
        more = config.input.unlabelled_ratio * batch
        for look, augment in (("weak", plan.augment), ("strong", plan.strong)):
            side = augment.window.side(plan.model.preprocessing.size)
            example[f"unlabelled_{look}"] = jax.ShapeDtypeStruct((more, side, side, plan.model.in_channels), jnp.uint8)
        for key in ("unlabelled_index", "unlabelled_shown"):
            example[key] = jax.ShapeDtypeStruct((more,), jnp.int32)
    if place:
        split = batch_sharding(mesh)
        example = {key: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=split) for key, leaf in example.items()}
    return state, example


def _step(plan: Plan, phase: Phase, config: ConfigDict, mesh: Mesh | None) -> Any:
    return jit_train_step(plan, phase, config, mesh or make_mesh(config.parallel.mesh), _features_apply(plan, phase, config))


def _features_apply(plan: Plan, phase: Phase, config: ConfigDict) -> ApplyFn | None:
    """The network on the kept features of its frozen prefix, where the phase reads those."""
    features, _ = features_of(plan, phase, config)
    return None if features is None else features.prefix.rest


def sizes_of_mesh(layout: str) -> Devices:
    """The mesh of a layout, of the devices present; of sizes alone where there are fewer than it names."""
    sizes = fixed_sizes(layout)
    if sizes is None or math.prod(sizes.values()) <= jax.device_count():
        return make_mesh(layout)
    return AbstractMesh(tuple(sizes.values()), tuple(sizes))


def missing_devices(layout: str) -> str:
    """What to say where there are fewer devices than a mesh names; "" where there are enough."""
    sizes = fixed_sizes(layout)
    needed, present = math.prod(sizes.values()) if sizes else 0, jax.device_count()
    if sizes is None or needed <= present:
        return ""
    return (
        f"the mesh {'x'.join(map(str, sizes.values()))} (data x fsdp x tensor) needs {needed} devices, here "
        f"{'is 1' if present == 1 else f'are {present}'}: JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES={needed} before the command "
        "simulates them"
    )


def compile_step(plan: Plan, phase: Phase, config: ConfigDict, mesh: Mesh | None = None) -> Any:
    """Compiles a phase's training step from shapes, as the run does; `mesh` as in `abstract_arguments`."""
    return _step(plan, phase, config, mesh).lower(*abstract_arguments(plan, phase, config, mesh)).compile()


def trace_step(plan: Plan, phase: Phase, config: ConfigDict, mesh: Mesh | None = None) -> Any:
    """Traces a phase's training step in XLA's own convolutions."""
    with plain_ops():
        return _step(plan, phase, config, mesh).trace(*abstract_arguments(plan, phase, config, mesh, place=False))


def step_ops(plan: Plan, phase: Phase, config: ConfigDict) -> tuple[list[Op], float]:
    """The live operations of a step, and XLA's count of FLOPs for it (without accumulation, whose loop XLA counts once)."""
    whole = ConfigDict(config)
    whole.train = ConfigDict({**config.train, "accum_steps": 1})
    traced = trace_step(plan, phase, config)
    again = traced if config.train.accum_steps == 1 else trace_step(plan, phase, whole)
    with plain_ops():
        return live_ops(traced.jaxpr), _xla_flops(again)


def step_needs(plan: Plan, phase: Phase, config: ConfigDict) -> tuple[Needs, float]:
    """What the trained leaves of a phase ask of a backward pass, and XLA's count of FLOPs for the forward pass and the loss."""
    state, batch = abstract_arguments(plan, phase, config, place=False)
    trainable, frozen = tree.split(plan.params, phase.mask)
    rng = jax.eval_shape(lambda: jax.random.key(0))
    with plain_ops():
        apply = _features_apply(plan, phase, config)
        if apply is None:
            batch = jax.eval_shape(plan.augment_batch, batch)
        objective = make_objective(phase.network(apply or plan.apply), plan.loss, phase.mask, teacher=plan.fixed.teacher_apply)
        given = (trainable, frozen, plan.model_state, batch, rng, state.ema, state.fixed)
        traced = jax.jit(objective, keep_unused=True).trace(*given)
        program: ClosedJaxpr = traced.jaxpr
        first = len(jax.tree.leaves(trainable))
        touched = [index < first for index in range(len(program.jaxpr.invars))]
        passes = 1 if config.train.sam_rho is None else 2  # both of the same kind
        needs = backward_needs(program, touched, modules_of(tree.paths(plan.params)))
        return needs.times(passes), passes * _xla_flops(traced)


def _xla_flops(traced: Any) -> float:
    return float((traced.lower().cost_analysis() or {}).get("flops", 0))


def cost_of(compiled: Any, ops: list[Op], xla_flops: float, *, text: str) -> Cost:
    """Puts together what the traced and the compiled program say."""
    analysis: Any = compiled.cost_analysis() or {}
    return Cost(
        flops=sum(op.flops for op in ops),
        recomputed=sum(op.flops for op in ops if op.recomputed),
        xla_flops=xla_flops,
        bytes_accessed=float(analysis.get("bytes accessed", 0)),
        memory=memory_of(compiled),
        collectives=collectives(text),
    )


def judge_step(phase: Phase, ops: list[Op], needs: Needs, text: str) -> Verdict:
    """Whether frozen backward work is left, in the traced step and in the compiled one."""
    mask = tree.flatten(phase.mask)
    return judge_backward(ops, needs, mask, modules_of(list(mask)), text)
