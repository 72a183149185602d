"""A phase's training step from shapes alone: traced, compiled, counted. Nothing is read, drawn or run."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr
from jax.sharding import NamedSharding
from ml_collections import ConfigDict

from jaxft import tree
from jaxft.explain.collectives import Collective, collectives
from jaxft.explain.program import Needs, Op, backward_needs, live_ops, modules_of
from jaxft.explain.verdict import Verdict, judge_backward
from jaxft.features import DTYPES
from jaxft.inputs import features_of
from jaxft.ops import plain_ops
from jaxft.parallel import Memory, batch_sharding, check_batch_size, data_mesh, memory_of, replicated
from jaxft.plan import Phase, Plan
from jaxft.run import jit_train_step
from jaxft.train import create_state, make_objective
from jaxft.typing import ApplyFn


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


def abstract_arguments(plan: Plan, phase: Phase, config: ConfigDict, *, place: bool = True) -> tuple[Any, dict[str, Any]]:
    """State and batch of a phase's step as shapes, with the run's shardings if `place`.

    Raises:
      JaxftError: a batch that does not split over the devices.
    """
    mesh = data_mesh()
    check_batch_size(config.input.batch_size // config.train.accum_steps, mesh, "batch_size / accum_steps")
    state = jax.eval_shape(
        lambda params, model_state: create_state(
            params, model_state, phase.tx, phase.mask, rng=jax.random.key(0), ema=config.train.ema_decay is not None
        ),
        plan.params,
        plan.model_state,
    )
    size, batch, label = plan.model.preprocessing.size, config.input.batch_size, plan.splits.train.labels
    image: tuple[tuple[int, ...], Any] = ((size, size, plan.model.in_channels), jnp.uint8)
    features, _ = features_of(plan, phase, config)
    if features is not None:
        image = (features.prefix.shape, DTYPES[features.dtype])
    example = {
        "image": jax.ShapeDtypeStruct((batch, *image[0]), image[1]),
        "label": jax.ShapeDtypeStruct((batch, *label.shape[1:]), label.dtype),
        "mask": jax.ShapeDtypeStruct((batch,), jnp.float32),
        "index": jax.ShapeDtypeStruct((batch,), jnp.int32),
    }
    return (_placed(state, replicated(mesh)), _placed(example, batch_sharding(mesh))) if place else (state, example)


def _placed(shapes: Any, sharding: NamedSharding) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes)


def _step(plan: Plan, phase: Phase, config: ConfigDict) -> Any:
    return jit_train_step(plan, phase, config, _apply(plan, phase, config))


def _apply(plan: Plan, phase: Phase, config: ConfigDict) -> ApplyFn:
    """The network on what the phase reads: pictures, or the kept features of its frozen prefix."""
    features, _ = features_of(plan, phase, config)
    return plan.apply if features is None else features.prefix.rest


def compile_step(plan: Plan, phase: Phase, config: ConfigDict) -> Any:
    """Compiles a phase's training step from shapes, as the run does."""
    return _step(plan, phase, config).lower(*abstract_arguments(plan, phase, config)).compile()


def step_ops(plan: Plan, phase: Phase, config: ConfigDict) -> tuple[list[Op], float]:
    """The live operations of a step, and XLA's count of FLOPs for it (without accumulation, whose loop XLA counts once)."""
    whole = ConfigDict(config)
    whole.train = ConfigDict({**config.train, "accum_steps": 1})
    with plain_ops():
        traced = _step(plan, phase, config).trace(*abstract_arguments(plan, phase, config, place=False))
        again = traced
        if config.train.accum_steps > 1:
            again = _step(plan, phase, whole).trace(*abstract_arguments(plan, phase, whole, place=False))
        return live_ops(traced.jaxpr), _xla_flops(again)


def step_needs(plan: Plan, phase: Phase, config: ConfigDict) -> tuple[Needs, float]:
    """What the trained leaves of a phase ask of a backward pass, and XLA's count of FLOPs for the forward pass and the loss."""
    _, batch = abstract_arguments(plan, phase, config, place=False)
    trainable, frozen = tree.split(plan.params, phase.mask)
    weight, rng = jax.ShapeDtypeStruct((), jnp.float32), jax.eval_shape(lambda: jax.random.key(0))
    with plain_ops():
        objective = jax.jit(make_objective(_apply(plan, phase, config), plan.loss, phase.mask), keep_unused=True)
        traced = objective.trace(trainable, frozen, plan.model_state, batch, weight, rng)
        program: ClosedJaxpr = traced.jaxpr
        first = len(jax.tree.leaves(trainable))
        touched = [index < first for index in range(len(program.jaxpr.invars))]
        return backward_needs(program, touched, modules_of(tree.paths(plan.params))), _xla_flops(traced)


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
