"""What the training step differentiates: the sum of a batch's losses, of losses of either form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxft import tree
from jaxft.errors import JaxftError
from jaxft.losses import wanted
from jaxft.metrics import model_outputs
from jaxft.train.average import with_averages
from jaxft.tuning.freeze import trains
from jaxft.typing import ApplyFn, Batch, LossFn, Mask, ModelState, Outputs, Params, Trains


def make_objective(
    apply: ApplyFn, loss: LossFn, mask: Mask, *, teacher: ApplyFn | None = None, norm_parts: int = 1, norm_axis: str = ""
) -> Callable[..., Any]:
    """Makes what the training step differentiates by its first argument.

    Returns:
      `(trainable, frozen, model_state, batch, rng, averages=None, fixed=None) -> (loss, (model_state, found))`: the two halves
      of the parameters, a batch with its `mask`, a key, `ema` and `fixed` of the state for a loss that takes them; `loss` is
      the sum of the examples' losses times their weights, `found` what metrics are made from.
    """
    train = trains(mask, norm_parts=norm_parts, norm_axis=norm_axis)

    def objective(
        trainable: Params,
        frozen: Params,
        model_state: ModelState,
        batch: Batch,
        rng: jax.Array,
        averages: Any = None,
        fixed: Any = None,
    ) -> tuple[jax.Array, tuple[ModelState, dict[str, jax.Array]]]:
        params = tree.merge(trainable, frozen)
        outputs, new_state = apply(params, model_state, batch["image"], train=train, rng=rng)
        averaged = None if averages is None else with_averages(params, model_state, averages)
        beside = given_beside(loss, teacher, fixed)
        per_example = example_losses(
            loss, apply, params, model_state, outputs, batch, train=train, rng=rng, averaged=averaged, beside=beside
        )
        # where, not times: a padded row may hold a NaN, and NaN times zero is NaN.
        summed = jnp.where(batch["mask"] > 0, per_example * batch["mask"], 0.0).sum()
        return summed, (new_state, model_outputs(outputs["logits"], batch["label"], per_example, batch["mask"]))

    return objective


def example_losses(
    loss: LossFn,
    apply: ApplyFn,
    params: Params,
    model_state: ModelState,
    outputs: Outputs,
    batch: Batch,
    *,
    train: bool | Trains,
    rng: jax.Array | None,
    averaged: tuple[Params, ModelState] | None,
    beside: Mapping[str, Any] | None = None,
) -> jax.Array:
    """A loss [B] f32 of either form.

    Args:
      loss, apply: see `make_objective`.
      params, model_state, outputs, batch: of the pass that was made.
      train, rng: its own; further passes have them too.
      averaged: the network whose trained parts are averages, which a loss may take; None where there is none.
      beside: of `given_beside`; None in an evaluation.

    Raises:
      JaxftError: the loss gave another shape.
    """
    if wanted(loss):
        average, average_state = (None, model_state) if averaged is None else averaged

        def forward(image: jax.Array, *, train: bool | Trains = train, params: Params = params) -> Outputs:
            """Another pass; its changes to the statistics are dropped. The averaged network has its own statistics."""
            statistics = average_state if params is average else model_state
            return apply(params, statistics, image, train=train, rng=rng)[0]

        given = {"forward": forward, "params": params, "average": average, "teacher": None, "anchor": None, **(beside or {})}
        found = loss(outputs, batch, **{name: given[name] for name in wanted(loss)})
    else:
        found = loss(outputs, batch)
    expected = (batch["image"].shape[0],)
    if tuple(jnp.shape(found)) != expected:
        raise JaxftError(
            f"{_name(loss)} returned shape {list(jnp.shape(found))}, expected {list(expected)} ([B]): one number an example, "
            "neither summed nor averaged over the batch"
        )
    return found.astype(jnp.float32)


def given_beside(loss: LossFn, teacher: ApplyFn | None, fixed: Any) -> dict[str, Any]:
    """What a loss takes of the state's `fixed`: `teacher` as a function of pixels, `anchor` as it is.

    Raises:
      JaxftError: the loss takes one that is not there.
    """
    found = dict(fixed or {})
    for name in ("teacher", "anchor"):
        if name in wanted(loss) and name not in found:
            raise JaxftError(f"the loss takes `{name}`, and the state's `fixed` has none: see jaxft.train.TrainState")
    if teacher is not None and "teacher" in found:
        params, model_state = found["teacher"]
        found["teacher"] = lambda image: teacher(params, model_state, image, train=False, rng=None)[0]
    return found


def _name(loss: LossFn) -> str:
    return str(getattr(loss, "__name__", getattr(getattr(loss, "func", None), "__name__", "the loss")))
