"""The training state of a phase: as shapes, fresh, out of a checkpoint; and the compiled step that takes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxft import tree
from jaxft.checkpoint import Checkpoints
from jaxft.errors import JaxftError
from jaxft.optim.moments import Anchors, anchored, carried, find, with_factor
from jaxft.parallel import batch_parts, gathered, param_shardings, parse_rules, replicate, replicated, state_shardings
from jaxft.phases import Phase
from jaxft.plan import Plan
from jaxft.standing import Standing
from jaxft.train import TrainState, create_state, last_params, make_train_step, remat_options
from jaxft.typing import ApplyFn, Batch, ModelState, Params

#: `(state, batch) -> (state, metrics)`, under `jax.jit`.
JittedStep = Any


def param_places(plan: Plan, phase: Phase, config: ConfigDict, mesh: Mesh) -> Any:
    """Which part of each parameter a device holds in a phase."""
    rules = parse_rules(config.parallel.rules, tree.paths(plan.params))
    frozen = tree.map_with_path(lambda _, trained: not trained, phase.mask)
    return param_shardings(plan.params, mesh, rules, whole=frozen if config.parallel.frozen == "replicate" else None)


def abstract_state(plan: Plan, phase: Phase, config: ConfigDict, mesh: Mesh | None = None) -> TrainState:
    """The state of a phase as shapes, with the places they have on `mesh`, where one is given."""
    shapes = jax.eval_shape(_create(plan, phase, config), plan.params, plan.model_state)
    shapes = dataclasses.replace(shapes, fixed=plan.fixed.shapes(shapes.params, phase.mask))
    if mesh is None:
        return shapes
    places = state_shardings(shapes, param_places(plan, phase, config, mesh), mesh)
    return jax.tree.map(lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes, places)


def _create(plan: Plan, phase: Phase, config: ConfigDict) -> Callable[[Params, ModelState], TrainState]:
    narrow: set[str] = set()
    if config.parallel.frozen_dtype == "bfloat16":
        masks = [tree.flatten(phase.mask) for phase in plan.phases]
        # Kernels only, and none that any phase trains: what is rounded once stays so.
        narrow = {
            path for path, leaf in tree.flatten(plan.params).items() if leaf.ndim > 1 and not any(mask[path] for mask in masks)
        }

    def create(params: Params, model_state: ModelState) -> TrainState:
        kept = tree.map_with_path(lambda path, leaf: leaf.astype(jnp.bfloat16) if path in narrow else leaf, params)
        keep = plan.average is not None
        return create_state(kept, model_state, phase.tx, phase.mask, rng=jax.random.key(config.seed), ema=keep)

    return create


def first_state(plan: Plan, config: ConfigDict, mesh: Mesh) -> TrainState:
    """The state before the first step. Nothing is whole on a device first that is not to be whole there."""
    phase = plan.phases[0]
    places, beside = _places(abstract_state(plan, phase, config, mesh))
    create = jax.jit(_create(plan, phase, config), out_shardings=places)
    state: TrainState = create(*first_weights(plan, phase, config, mesh))
    return _with_fixed(state, beside, plan, phase, config, mesh)


def _with_fixed(state: TrainState, places: Any, plan: Plan, phase: Phase, config: ConfigDict, mesh: Mesh) -> TrainState:
    """The state with what its loss reads beside it, made anew from where the config says and put where `places` says."""
    first = first_weights(plan, phase, config, mesh)[0] if plan.fixed.anchored else {}
    return dataclasses.replace(state, fixed=plan.fixed.arrays(first, phase.mask, places))


def _places(abstract: TrainState) -> tuple[TrainState, Any]:
    """Where the leaves of an abstract state lie: those that a step changes, and what is beside them."""
    places: TrainState = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return dataclasses.replace(places, fixed=None), places.fixed


def first_weights(plan: Plan, phase: Phase, config: ConfigDict, mesh: Mesh) -> tuple[Params, ModelState]:
    """The network before the first step, where it lies in a phase."""
    statistics = jax.tree.map(lambda _: replicated(mesh), dict(plan.model_state))
    return plan.begin((param_places(plan, phase, config, mesh), statistics))


def enter(
    plan: Plan,
    phase: Phase,
    config: ConfigDict,
    mesh: Mesh,
    params: Params,
    model_state: ModelState,
    step: int,
    *,
    moments: Any = None,
) -> TrainState:
    """A phase begins: fresh averages, and moments that go on for what trained in the phase before.

    Args:
      plan, phase, config, mesh: of the run.
      params, model_state: on the devices.
      step: steps made.
      moments: the optimizer's state at the end of the phase before; None begins anew.
    """
    create = _create(plan, phase, config)

    def begun(params: Params, model_state: ModelState, moments: Any) -> TrainState:
        fresh = create(params, model_state)
        if moments is None or not phase.keeps:
            return fresh
        return dataclasses.replace(fresh, opt_state=carried(moments, fresh.opt_state))

    places, beside = _places(abstract_state(plan, phase, config, mesh))
    state: TrainState = jax.jit(begun, out_shardings=places)(params, model_state, moments)
    if next(find(state.opt_state, Anchors), None) is not None:  # what L2-SP pulls to is where the run began
        start, _ = first_weights(plan, phase, config, mesh)
        state = dataclasses.replace(state, opt_state=anchored(state.opt_state, start))
    state = dataclasses.replace(state, step=replicate(jnp.int32(step), mesh))
    return _with_fixed(state, beside, plan, phase, config, mesh)


def begin(
    plan: Plan,
    phase: Phase,
    config: ConfigDict,
    mesh: Mesh,
    checkpoints: Checkpoints,
    state: TrainState,
    standing: Standing,
    step: int,
) -> TrainState:
    """A phase goes on from the weights of the one before; with `config.train.restore_best` from those of the best checkpoint,
    as they were judged: averages, where those are kept. What trained before keeps its moments, but for the latter.

    Args:
      plan, phase, config, mesh, checkpoints: of the run.
      state, standing: where the phase before ended.
      step: steps made.
    """
    weights, moments = (last_params(state), state.model_state), state.opt_state
    if config.train.restore_best:
        checkpoints.wait()  # the best may be the one that is being saved, and one that is lost is the best no longer
        if standing.best_step is not None:
            abstract = abstract_state(plan, phase, config, mesh)
            weights = checkpoints.restore_weights(standing.best_step, abstract.params, abstract.model_state)
            moments = None  # they are of other weights
    return enter(plan, phase, config, mesh, *weights, step, moments=moments)


def with_rate(state: TrainState, phase: Phase, standing: Standing, mesh: Mesh) -> TrainState:
    """The state with the rate that plateau has come to; as it is, where the phase's schedule is another."""
    if phase.plateau is None:
        return state
    return dataclasses.replace(state, opt_state=with_factor(state.opt_state, replicate(jnp.float32(standing.factor), mesh)))


def restore_state(
    plan: Plan, config: ConfigDict, mesh: Mesh, checkpoints: Checkpoints, say: Callable[[str], None]
) -> tuple[TrainState, Standing] | None:
    """The newest whole checkpoint of the run, placed on `mesh`, whatever mesh it was saved from; None where there is none.

    Args:
      plan, config, mesh, checkpoints: of the run.
      say: is given a line for each damaged checkpoint.

    Raises:
      JaxftError: the data is not what it was, or no checkpoint is whole.
    """
    step = checkpoints.newest_whole(say)
    if step is None:
        return None
    meta = checkpoints.meta(step)
    if made_of := meta["run"].get("made_of"):
        raise JaxftError(
            f"the workdir holds a {made_of['kind']} of other runs, and no training to go on with: start in a new --workdir"
        )
    if meta["run"]["data_fingerprint"] != plan.splits.fingerprint:
        raise JaxftError(
            f"the data changed since step {step} was saved ('{config.data.source}' has other pictures or labels): "
            "a resumed run needs the same data; start a new --workdir"
        )
    standing = Standing(**meta["standing"])
    best = standing.best_step
    if best not in (None, step) and (damage := checkpoints.damage(best)):
        say(f"the best checkpoint, step {best}, is damaged ({damage}): the next evaluation is the best")
        standing.forget(best)
    for what, digest in meta["run"].get("beside", {}).items():
        if digest != plan.record["beside"].get(what):
            raise JaxftError(
                f"{what} is not what it was when step {step} was saved: a resumed run needs the same; start a new --workdir"
            )
    phase = next(phase for phase in plan.phases if phase.name == standing.phase)
    abstract = abstract_state(plan, phase, config, mesh)
    state = checkpoints.restore(step, abstract)
    return _with_fixed(state, _places(abstract)[1], plan, phase, config, mesh), standing


def roll_back(
    plan: Plan,
    phase: Phase,
    config: ConfigDict,
    mesh: Mesh,
    checkpoints: Checkpoints,
    step: int,
    say: Callable[[str], None],
) -> TrainState:
    """The newest checkpoint's state with its clocks set to `step`: the batches in between are passed over.

    Args:
      plan, phase, config, mesh, checkpoints, say: see `restore_state`.
      step: the one that is not finite.

    Raises:
      JaxftError: there is no checkpoint.
    """
    checkpoints.wait()
    found = restore_state(plan, config, mesh, checkpoints, say)
    if found is None:
        raise JaxftError(
            f"step {step} is not finite and there is no checkpoint to go back to: set config.train.checkpoint_every, or lower "
            f"config.phases.{phase.name}.lr"
        )
    state, standing = found
    if standing.phase != phase.name:
        state = begin(plan, phase, config, mesh, checkpoints, state, standing, phase.start)
    passed = step - int(state.step)

    def later(leaf: jax.Array) -> jax.Array:
        return leaf + passed if jnp.issubdtype(leaf.dtype, jnp.signedinteger) else leaf

    clocks = jax.jit(lambda tree: jax.tree.map(later, tree), donate_argnums=0)
    return dataclasses.replace(state, step=replicate(jnp.int32(step), mesh), opt_state=clocks(state.opt_state))


def jit_train_step(
    plan: Plan,
    phase: Phase,
    config: ConfigDict,
    mesh: Mesh,
    apply: ApplyFn | None = None,
    augment: Callable[[Batch], Batch] | None = None,
) -> JittedStep:
    """The compiled training step of a phase. The state is donated: its memory becomes the next state's.

    Args:
      plan, phase, config, mesh: of the run.
      apply, augment: the network on what the phase reads, and what is done to that before; without an `apply` pictures, and
        what the config says.
    """
    network, prepare = (apply, augment) if apply is not None else (plan.apply, plan.augment_batch)
    network = phase.network(network)
    if mesh.devices.flat[0].platform == "tpu":  # compilers for GPUs gather by themselves, and then fewer bytes
        network = gathered(network, param_places(plan, phase, config, mesh))
    average = plan.average
    step = make_train_step(
        network,
        plan.loss,
        phase.tx,
        phase.mask,
        metrics=plan.task.train_metrics,
        accum_steps=config.train.accum_steps,
        average=None if average is None else lambda steps: average(steps - phase.start),
        teacher=plan.fixed.teacher_apply,
        sam_rho=config.train.sam_rho,
        sam_adaptive=config.train.sam_adaptive,
        norm_parts=batch_parts(mesh) if config.parallel.batch_norm == "replica" else 1,
        skip_nonfinite=config.train.nonfinite == "skip",
        augment=prepare,
    )
    places = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(plan, phase, config, mesh))
    options = remat_options(mesh) if config.model.remat else None
    return jax.jit(step, donate_argnums=0, out_shardings=(places, replicated(mesh)), compiler_options=options)
