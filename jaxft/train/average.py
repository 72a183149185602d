"""Averages of the weights over the steps of training, and what they are averages of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxft import tree
from jaxft.errors import JaxftError
from jaxft.train.statistics import moving
from jaxft.tuning.freeze import trains
from jaxft.typing import Mask, ModelState, Params

#: Steps made since the average was begun, the last one included (int32 []) -> the weight of the network in the average, f32 [].
Average = Callable[[jax.Array], jax.Array]


def ema(
    decay: float,
    *,
    start: int = 0,
    warmup_power: float | None = None,
    warmup_gamma: float = 1.0,
    min_decay: float = 0.0,
) -> Average:
    """An exponential moving average: `average = d * average + (1 - d) * network` after every step.

    As timm's ModelEmaV3 where it is told the step: it is the network itself until the first step after `start` is made; with a
    warm-up `d` of the s-th step after that one is `1 - (1 + s / warmup_gamma) ** -warmup_power`, kept in [min_decay, decay].

    Args:
      decay: d, in (0, 1).
      start: steps before it begins.
      warmup_power: None has no warm-up; 2/3 reaches 0.999 after 31,600 steps, 3/4 after 10,000, 1 is the plain mean so far.
      warmup_gamma, min_decay: of the warm-up.

    Raises:
      JaxftError: an argument out of its range.
    """
    if not 0 < decay < 1:
        raise JaxftError(f"ema_decay is {decay}: it must lie between 0 and 1")
    if start < 0:
        raise JaxftError(f"ema_start is {start}: it must be at least 0 steps")
    if warmup_power is not None and warmup_power <= 0:
        raise JaxftError(f"ema_warmup_power is {warmup_power}: it must be positive, e.g. 0.67")
    if warmup_gamma <= 0:
        raise JaxftError(f"ema_warmup_gamma is {warmup_gamma}: it must be positive")
    if not 0 <= min_decay <= decay:
        raise JaxftError(f"ema_min_decay is {min_decay}: it must lie between 0 and ema_decay ({decay})")

    def weight(steps: jax.Array) -> jax.Array:
        made = steps - start - 1
        new = jnp.float32(1 - decay)
        if warmup_power is not None:
            # Of the weight, not of the decay: one minus a decay near one is rounded.
            grown = (1 + jnp.maximum(made, 0).astype(jnp.float32) / warmup_gamma) ** -warmup_power
            new = jnp.clip(grown, 1 - decay, 1 - min_decay)
        return jnp.where(made > 0, new, jnp.float32(1))

    return weight


def swa(start: int, every: int) -> Average:
    """Stochastic weight averaging (Izmailov et al., 2018): the mean of the networks after `start`, `start + every`, ... steps.

    Until `start` it is the network itself. As torch's AveragedModel, updated at these steps.

    Raises:
      JaxftError: an argument out of its range.
    """
    if start < 0:
        raise JaxftError(f"swa_start is {start}: it must be at least 0 steps")
    if every < 1:
        raise JaxftError(f"swa_every is {every}: it must be at least one step")

    def weight(steps: jax.Array) -> jax.Array:
        past = steps - start
        taken = jnp.maximum(past, 0) // every  # networks in the mean already
        due = jnp.where(past % every == 0, 1 / (taken + 1).astype(jnp.float32), jnp.float32(0))
        return jnp.where(past < 0, jnp.float32(1), due)

    return weight


def averaged_part(params: Params, model_state: ModelState, mask: Mask) -> dict[str, Any]:
    """What an average is of: `{"params": the trained leaves, "model_state": the statistics of norms that train}`.

    Averages of weights ask for averages of the statistics that the weights make; those of a frozen norm do not change. A part
    without leaves is left out.
    """
    chosen = {"params": mask, "model_state": moving(model_state, trains(mask))}
    return tree.split({"params": params, "model_state": model_state}, chosen)[0]


def with_averages(params: Params, model_state: ModelState, averages: Any) -> tuple[Params, ModelState]:
    """(params, model_state) with the averages, `averaged_part`s of any kind of leaf, in the place of what they are of."""
    flat = tree.flatten({"params": params, "model_state": model_state})
    flat = {**flat, **tree.flatten(averages)}
    both = tree.unflatten(flat)
    return both.get("params", {}), both.get("model_state", dict(model_state))


def moved(averages: Any, network: Any, weight: jax.Array) -> Any:
    """`(1 - weight) * averages + weight * network`, leaf by leaf; exact at 0 and 1."""

    def between(old: jax.Array, new: jax.Array) -> jax.Array:
        part = weight.astype(old.dtype)
        return jnp.where(part < 0.5, old + part * (new - old), new - (1 - part) * (new - old))

    return jax.tree.map(between, averages, network)
