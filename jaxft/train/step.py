"""The training and the evaluation step, as pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxft import tree
from jaxft.errors import JaxftError
from jaxft.losses import wants_forward
from jaxft.metrics import model_outputs
from jaxft.train.state import TrainState
from jaxft.tuning.freeze import trains
from jaxft.typing import ApplyFn, Batch, LossFn, Mask, Metrics, ModelState, Outputs, Params, Trains

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Any]]
EvalStep = Callable[[Params, ModelState, Batch], tuple[Any, dict[str, jax.Array]]]


def make_objective(apply: ApplyFn, loss: LossFn, mask: Mask) -> Callable[..., Any]:
    """Makes what the training step differentiates by its first argument.

    Returns:
      `(trainable, frozen, model_state, batch, weight, rng) -> (loss, (model_state, found))`: the two halves of the parameters,
      a batch with its `mask`, the sum of the whole batch's mask, a key; `found` is what metrics are made from.
    """
    train = trains(mask)

    def objective(
        trainable: Params, frozen: Params, model_state: ModelState, batch: Batch, weight: jax.Array, rng: jax.Array
    ) -> tuple[jax.Array, tuple[ModelState, dict[str, jax.Array]]]:
        params = tree.merge(trainable, frozen)
        outputs, new_state = apply(params, model_state, batch["image"], train=train, rng=rng)
        per_example = _per_example(loss, apply, params, model_state, outputs, batch, train, rng)
        # where, not times: a padded row may hold a NaN, and NaN times zero is NaN.
        summed = jnp.where(batch["mask"] > 0, per_example * batch["mask"], 0.0).sum()
        found = model_outputs(outputs["logits"], batch["label"], per_example, batch["mask"])
        return summed / weight, (new_state, found)

    return objective


def make_train_step(
    apply: ApplyFn,
    loss: LossFn,
    tx: optax.GradientTransformation,
    mask: Mask,
    *,
    metrics: Metrics,
    accum_steps: int = 1,
    ema_decay: float | None = None,
) -> TrainStep:
    """Makes the training step.

    Gradients are taken for the trained leaves alone: for the rest the compiled step has no backward pass, no optimizer
    state, no update. The loss is a weighted mean, sum(mask * loss) / sum(mask), over the whole batch, also under
    accumulation.

    Args:
      apply: the network.
      loss: gives [B].
      tx: a transform of the trainable subtree.
      mask: what is trained.
      metrics: a clu Collection class, made from `jaxft.metrics.model_outputs` (and `grad_norm`).
      accum_steps: microbatches a step; must divide the batch size. BatchNorm sees microbatches, one after the other.
      ema_decay: decay of the running average of trained leaves; None keeps none.

    Returns:
      `(state, batch) -> (state, metrics)`, pure. jit it with `donate_argnums=0`.
    """
    if accum_steps < 1:
        raise JaxftError(f"accum_steps is {accum_steps}: it must be at least 1")
    if ema_decay is not None and not 0 < ema_decay < 1:
        raise JaxftError(f"ema_decay is {ema_decay}: it must lie between 0 and 1")

    objective = make_objective(apply, loss, mask)

    def gradients(
        trainable: Params, frozen: Params, model_state: ModelState, batch: Batch, weight: jax.Array, rng: jax.Array
    ) -> tuple[Any, ModelState, dict[str, jax.Array]]:
        take = jax.grad(objective, has_aux=True)
        grads, (new_state, found) = take(trainable, frozen, model_state, batch, weight, rng)
        return grads, new_state, found

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Any]:
        batch = _with_mask(batch)
        rng = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
        trainable, frozen = tree.split(state.params, mask)
        weight = jnp.maximum(batch["mask"].sum(), 1e-12)  # an all-padding batch has gradient zero, not NaN
        if accum_steps == 1:
            grads, model_state, found = gradients(trainable, frozen, state.model_state, batch, weight, rng)
        else:
            grads, model_state, found = _accumulate(
                gradients, trainable, frozen, state.model_state, batch, weight, rng, accum_steps
            )
        _check_structure(state.model_state, model_state)
        norm = optax.global_norm(grads)
        updates, opt_state = tx.update(grads, state.opt_state, trainable)
        trainable = optax.apply_updates(trainable, updates)
        ema = state.ema
        if ema_decay is not None:
            ema = jax.tree.map(lambda old, new: ema_decay * old + (1 - ema_decay) * new, ema, trainable)
        new = state.replace(  # type: ignore[attr-defined]
            step=state.step + 1,
            params=tree.merge(trainable, frozen),
            model_state=model_state,
            opt_state=opt_state,
            ema=ema,
        )
        return new, metrics.single_from_model_output(**found, grad_norm=norm)

    return step


def make_eval_step(apply: ApplyFn, loss: LossFn, *, metrics: Metrics) -> EvalStep:
    """Makes the evaluation step `(params, model_state, batch) -> (metrics, per_example)`, pure.

    `per_example` holds `logits` [B, K] and `loss` [B]; rows with mask 0 are padding.
    """

    def step(params: Params, model_state: ModelState, batch: Batch) -> tuple[Any, dict[str, jax.Array]]:
        batch = _with_mask(batch)
        outputs, _ = apply(params, model_state, batch["image"], train=False, rng=None)
        per_example = _per_example(loss, apply, params, model_state, outputs, batch, False, None)
        found = model_outputs(outputs["logits"], batch["label"], per_example, batch["mask"])
        return metrics.single_from_model_output(**found), {"logits": outputs["logits"], "loss": per_example}

    return step


def remat_options() -> dict[str, str] | None:
    """The `compiler_options` of `jax.jit` for a step of a network with `remat`; None where it needs none.

    XLA's CPU backend takes `jax.checkpoint`'s barriers away before it merges equal subexpressions, and merges what was to be
    computed again with what was computed first: nothing is saved. This keeps the barriers (measured: ResNet-18, 64 pixels,
    batch 16: 18 MB of temporaries for 33; without it 35).
    """
    return {"xla_disable_hlo_passes": "cse_barrier_expander"} if jax.default_backend() == "cpu" else None


def _with_mask(batch: Batch) -> Batch:
    if "mask" in batch:
        return batch
    return {**batch, "mask": jnp.ones(batch["image"].shape[0], jnp.float32)}


def _per_example(
    loss: LossFn,
    apply: ApplyFn,
    params: Params,
    model_state: ModelState,
    outputs: Outputs,
    batch: Batch,
    train: bool | Trains,
    rng: jax.Array | None,
) -> jax.Array:
    if wants_forward(loss):

        def forward(image: jax.Array, *, train: bool | Trains = train, params: Params = params) -> Outputs:
            """Another pass; its changes to the statistics are dropped."""
            return apply(params, model_state, image, train=train, rng=rng)[0]

        found = loss(outputs, batch, forward=forward, params=params)
    else:
        found = loss(outputs, batch)
    expected = (batch["image"].shape[0],)
    if tuple(jnp.shape(found)) != expected:
        name = getattr(loss, "__name__", getattr(getattr(loss, "func", None), "__name__", "the loss"))
        raise JaxftError(
            f"{name} returned shape {list(jnp.shape(found))}, expected {list(expected)} ([B]): one number an example, "
            "neither summed nor averaged over the batch"
        )
    return found.astype(jnp.float32)


def _accumulate(
    gradients: Callable[..., Any],
    trainable: Params,
    frozen: Params,
    model_state: ModelState,
    batch: Batch,
    weight: jax.Array,
    rng: jax.Array,
    steps: int,
) -> tuple[Any, ModelState, dict[str, jax.Array]]:
    """Sums gradients over microbatches under scan; each is already divided by the weight of the whole batch."""
    size = batch["image"].shape[0]
    if size % steps:
        raise JaxftError(f"accum_steps ({steps}) does not divide the batch size ({size})")
    # Strided microbatches: each device keeps its own examples, whatever the number of microbatches.
    micro = jax.tree.map(lambda x: x.reshape(size // steps, steps, *x.shape[1:]).swapaxes(0, 1), dict(batch))

    def body(carry: tuple[Any, ModelState], item: tuple[jax.Array, Batch]) -> tuple[tuple[Any, ModelState], Any]:
        total, model_state = carry
        index, part = item
        grads, model_state, found = gradients(trainable, frozen, model_state, part, weight, jax.random.fold_in(rng, index))
        return (jax.tree.map(jnp.add, total, grads), model_state), found

    zeros = jax.tree.map(jnp.zeros_like, trainable)
    (grads, model_state), found = jax.lax.scan(body, (zeros, model_state), (jnp.arange(steps), micro))
    merged = jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(size, *x.shape[2:]), found)
    return grads, model_state, merged


def _check_structure(old: ModelState, new: ModelState) -> None:
    found = tree.diff(old, new)
    if found:
        raise JaxftError(f"the network gave back another model state than it was given: {found}")
