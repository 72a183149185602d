"""The training and the evaluation step, as pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxft import tree
from jaxft.errors import JaxftError
from jaxft.losses import wanted
from jaxft.metrics import model_outputs
from jaxft.train.average import Average, averaged_part, moved
from jaxft.train.objective import example_losses, make_objective
from jaxft.train.sharpness import perturbed
from jaxft.train.state import TrainState
from jaxft.typing import ApplyFn, Batch, LossFn, Mask, Metrics, ModelState, Params

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Any]]
EvalStep = Callable[[Params, ModelState, Batch], tuple[Any, dict[str, jax.Array]]]


def make_train_step(
    apply: ApplyFn,
    loss: LossFn,
    tx: optax.GradientTransformation,
    mask: Mask,
    *,
    metrics: Metrics,
    accum_steps: int = 1,
    average: Average | None = None,
    teacher: ApplyFn | None = None,
    sam_rho: float | None = None,
    sam_adaptive: bool = False,
    norm_parts: int = 1,
    skip_nonfinite: bool = False,
    axis_name: str = "",
    augment: Callable[[Batch], Batch] | None = None,
) -> TrainStep:
    """Makes the training step.

    Gradients are taken for the trained leaves alone: for the rest the compiled step has no backward pass, no optimizer
    state, no update. The loss is a weighted mean, sum(mask * loss) / sum(mask), over the whole batch, also under
    accumulation. The gradient of the sum is divided by the sum of weights at the end, so that devices tell each other both,
    and the metrics' sums, at once.

    Args:
      apply: the network.
      loss: gives [B].
      tx: a transform of the trainable subtree.
      mask: what is trained.
      metrics: a clu Collection class, made from `jaxft.metrics.model_outputs` (and `grad_norm`, `finite`).
      accum_steps: microbatches a step; must divide the batch size. BatchNorm sees microbatches, one after the other.
      average: `jaxft.train.ema(...)` or `swa(...)`, of the trained leaves and of the statistics of norms that train; None keeps
        none. The state is of `create_state(..., ema=True)`. Of a step, `state.step + 1` are made.
      teacher: the network on pixels that a loss takes as `teacher`; its arrays are those of the state's `fixed`.
      sam_rho: sharpness-aware minimisation (Foret et al., 2021): the gradient is taken once more, of the same batch with the
        same random numbers, where the first one leads: at `w + sam_rho * g / ||g||`, and that one trains `w`. The norm is over
        all trained leaves and the whole batch, on however many devices. Statistics and all figures but `grad_norm`, which is
        of the gradient that trains, are the first pass's. A step costs two. None: plain training.
      sam_adaptive: `sam_rho` is of ASAM (Kwon et al., 2021); see `jaxft.train.sharpness.perturbed`.
      norm_parts: BatchNorm takes its statistics over the whole batch (1), or over each of so many parts of it: with as many as
        there are devices, each over its own examples, as torch's DistributedDataParallel does.
      skip_nonfinite: a step whose loss or gradient is not finite changes nothing but the clocks: the step and what integers the
        optimizer's state has. Its figures are left out, but for `nonfinite`.
      axis_name: of a mapped axis, of `jax.pmap` or `jax.shard_map`: the step is given each device's share of the batch. Random
        numbers (dropout) then differ from those under `jit`; a `norm_parts` other than 1 is taken as each device's own.
      augment: what is done to a batch first, e.g. `jaxft.augment.Augment.batch` with its options bound.

    Returns:
      `(state, batch) -> (state, metrics)`, pure. jit it with `donate_argnums=0`.
    """
    if accum_steps < 1:
        raise JaxftError(f"accum_steps is {accum_steps}: it must be at least 1")
    if sam_rho is not None and not sam_rho > 0:
        raise JaxftError(f"sam_rho is {sam_rho}: it must be positive, e.g. 0.05")
    if sam_adaptive and sam_rho is None:
        raise JaxftError("sam_adaptive needs sam_rho, e.g. 0.5")
    if average is None and "average" in wanted(loss):
        raise JaxftError("the loss takes `average`: give make_train_step an average, e.g. jaxft.train.ema(0.999)")
    if teacher is None and "teacher" in wanted(loss):
        raise JaxftError("the loss takes `teacher`: give make_train_step one, and the state its arrays as `fixed`")

    own_norms = norm_parts > 1
    objective = make_objective(
        apply,
        loss,
        mask,
        teacher=teacher,
        norm_parts=1 if axis_name else norm_parts,
        norm_axis="" if own_norms else axis_name,
    )
    gradients = jax.value_and_grad(objective, has_aux=True)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Any]:
        batch = _with_mask(batch if augment is None else augment(batch))
        rng = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
        if axis_name:
            rng = jax.random.fold_in(rng, jax.lax.axis_index(axis_name))
        trainable, frozen = tree.split(state.params, mask)

        def summed_over_batch(trainable: Params) -> tuple[jax.Array, ModelState, dict[str, jax.Array], jax.Array, Any]:
            """(loss, model state, `found`, weight, gradients), sums over the batch of all devices."""
            given = (trainable, frozen, state.model_state, batch, rng, state.ema, state.fixed)
            if accum_steps == 1:
                (summed, (model_state, found)), grads = gradients(*given)
            else:
                summed, model_state, found, grads = _accumulate(gradients, *given, steps=accum_steps)
            weight = batch["mask"].sum()
            if axis_name:
                summed, weight, grads = jax.lax.psum((summed, weight, grads), axis_name)
            return summed, model_state, found, jnp.maximum(weight, 1e-12), grads  # all padding: gradient zero, not NaN

        summed, model_state, found, weight, grads = summed_over_batch(trainable)
        _check_structure(state.model_state, model_state)
        if own_norms and axis_name:
            model_state = _of_first(model_state, axis_name)
        # Of the sums: so the quotients are needed only where they are used, and never lie in memory.
        squares = [optax.tree.norm(grad, squared=True) for grad in jax.tree.leaves(grads)]
        finite = jnp.isfinite(jnp.stack([summed, *squares]))
        if sam_rho is not None:
            *_, grads = summed_over_batch(perturbed(trainable, grads, sam_rho, adaptive=sam_adaptive))
            squares = [optax.tree.norm(grad, squared=True) for grad in jax.tree.leaves(grads)]
            finite &= jnp.isfinite(jnp.stack([summed, *squares]))
        norm = jnp.sqrt(sum(squares)) / weight
        grads = jax.tree.map(lambda grad: grad / weight.astype(grad.dtype), grads)
        updates, opt_state = tx.update(grads, state.opt_state, trainable)
        trainable = optax.apply_updates(trainable, updates)
        params = tree.merge(trainable, frozen)
        averages = state.ema
        if average is not None:
            averages = moved(averages, averaged_part(params, model_state, mask), average(state.step + 1))
        new = state.replace(  # type: ignore[attr-defined]
            step=state.step + 1,
            params=params,
            model_state=model_state,
            opt_state=opt_state,
            ema=averages,
        )
        given = {**found, "grad_norm": norm, "finite": finite}
        collected = (
            metrics.gather_from_model_output(axis_name=axis_name, **given)
            if axis_name
            else metrics.single_from_model_output(**given)
        )
        if skip_nonfinite:
            new, collected = _unless(finite.all(), state, new, collected)
        return new, collected

    return step


def _of_first(model_state: ModelState, axis_name: str) -> Any:
    """The first device's statistics, on all."""
    first = jax.lax.axis_index(axis_name) == 0
    return jax.lax.psum(jax.tree.map(lambda leaf: jnp.where(first, leaf, 0), model_state), axis_name)


def _unless(fine: jax.Array, old: TrainState, new: TrainState, collected: Any) -> tuple[TrainState, Any]:
    """The new state and its figures where all is fine; else the old one, its clocks moved on, and no figures."""

    def chosen(before: jax.Array, after: jax.Array) -> jax.Array:
        # Clocks count on: the schedule of the optimizer's learning rate is a function of the step.
        return after if jnp.issubdtype(after.dtype, jnp.integer) else jnp.where(fine, after, before)

    counted = jax.tree.map(lambda leaf: jnp.where(fine, leaf, jnp.zeros_like(leaf)), collected)
    return jax.tree.map(chosen, old, new), counted.replace(nonfinite=collected.nonfinite)


def make_eval_step(
    apply: ApplyFn,
    loss: LossFn,
    *,
    metrics: Metrics,
    augment: Callable[[Batch], Batch] | None = None,
    keep_logits: bool = True,
) -> EvalStep:
    """Makes the evaluation step `(params, model_state, batch) -> (metrics, per_example)`, pure.

    `per_example` holds `logits` [B, K] and `loss` [B]; rows with mask 0 are padding.

    Args:
      apply, loss, metrics: as of `make_train_step`.
      augment: what is done to a batch first, where a loss compares views.
      keep_logits: False gives `logits` [B, 0]: outputs that nobody reads, of which there may be one a pixel.
    """

    def step(params: Params, model_state: ModelState, batch: Batch) -> tuple[Any, dict[str, jax.Array]]:
        batch = _with_mask(batch if augment is None else augment(batch))
        outputs, _ = apply(params, model_state, batch["image"], train=False, rng=None)
        averaged = (params, model_state)  # averages are what is evaluated, where they are kept
        per_example = example_losses(loss, apply, params, model_state, outputs, batch, train=False, rng=None, averaged=averaged)
        found = model_outputs(outputs["logits"], batch["label"], per_example, batch["mask"])
        logits = outputs["logits"] if keep_logits else outputs["logits"][:, :0]
        return metrics.single_from_model_output(**found), {"logits": logits, "loss": per_example}

    return step


def remat_options(mesh: Mesh | None = None) -> dict[str, str] | None:
    """The `compiler_options` of `jax.jit` for a step of a network with `remat`; None where it needs none.

    `mesh` has the devices that the step is compiled for; without it they are those that JAX computes on.

    XLA's CPU backend takes `jax.checkpoint`'s barriers away before it merges equal subexpressions, and merges what was to be
    computed again with what was computed first: nothing is saved. This keeps the barriers (measured: ResNet-18, 64 pixels,
    batch 16: 18 MB of temporaries for 33; without it 35).
    """
    platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    return {"xla_disable_hlo_passes": "cse_barrier_expander"} if platform == "cpu" else None


def _with_mask(batch: Batch) -> Batch:
    if "mask" in batch:
        return batch
    return {**batch, "mask": jnp.ones(batch["image"].shape[0], jnp.float32)}


def _accumulate(
    gradients: Callable[..., Any],
    trainable: Params,
    frozen: Params,
    model_state: ModelState,
    batch: Batch,
    rng: jax.Array,
    averages: Any,
    fixed: Any,
    *,
    steps: int,
) -> tuple[jax.Array, ModelState, dict[str, jax.Array], Any]:
    """Sums losses and gradients over microbatches under scan: (loss, model state, `found`, gradients)."""
    size = batch["image"].shape[0]
    if size % steps:
        raise JaxftError(f"accum_steps ({steps}) does not divide the batch size ({size})")
    # Strided microbatches: each device keeps its own examples, whatever the number of microbatches. There may be more rows of
    # pictures without labels, a multiple of the batch size.
    micro = jax.tree.map(lambda x: x.reshape(len(x) // steps, steps, *x.shape[1:]).swapaxes(0, 1), dict(batch))

    def body(carry: tuple[Any, Any, ModelState], item: tuple[jax.Array, Batch]) -> tuple[tuple[Any, Any, ModelState], Any]:
        loss, total, model_state = carry
        index, part = item
        key = jax.random.fold_in(rng, index)
        (summed, (model_state, found)), grads = gradients(trainable, frozen, model_state, part, key, averages, fixed)
        return (loss + summed, jax.tree.map(jnp.add, total, grads), model_state), found

    begin = (jnp.zeros((), jnp.float32), jax.tree.map(jnp.zeros_like, trainable), model_state)
    (loss, grads, model_state), found = jax.lax.scan(body, begin, (jnp.arange(steps), micro))
    merged = jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(size, *x.shape[2:]), found)
    return loss, model_state, merged, grads


def _check_structure(old: ModelState, new: ModelState) -> None:
    found = tree.diff(old, new)
    if found:
        raise JaxftError(f"the network gave back another model state than it was given: {found}")
