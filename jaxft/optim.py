"""Optimizers for the trainable part: optax transforms with schedules, clipping and parameter groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxft import tree
from jaxft.errors import JaxftError, near
from jaxft.losses import import_function
from jaxft.tuning.groups import Group, assign
from jaxft.typing import Mask, Params

#: Learning rate of a step (int or int32 array), counted from 0.
Schedule = Callable[[Any], Any]

_NAMES = ("sgd", "adam", "adamw")
_SCHEDULES = ("constant", "cosine", "linear", "step")


def make_schedule(
    lr: float,
    *,
    total_steps: int,
    schedule: str = "cosine",
    warmup_steps: int = 0,
    end_lr: float = 0.0,
    step_every: int | None = None,
    step_factor: float = 0.1,
) -> Schedule:
    """Linear warm-up, then a decay.

    Step s of a warm-up of W steps has `lr * (s + 1) / W`: the first step already moves, the W-th has the full rate.

    Args:
      lr: the peak.
      total_steps: length of warm-up and decay together.
      schedule: "constant"; "cosine" or "linear" down to `end_lr`; "step": times `step_factor` every `step_every` steps.
      warmup_steps: W.
      end_lr: where cosine and linear end.
      step_every, step_factor: of "step".

    Raises:
      JaxftError: an argument out of its range.
    """
    if schedule not in _SCHEDULES:
        raise JaxftError(f"no schedule is called '{schedule}'{near(schedule, _SCHEDULES)}; there are {', '.join(_SCHEDULES)}")
    if not lr > 0:
        raise JaxftError(f"lr is {lr}: it must be positive")
    if not 0 <= warmup_steps <= total_steps:
        raise JaxftError(f"warm-up of {warmup_steps} steps does not fit into {total_steps} steps")
    if not 0 <= end_lr <= lr:
        raise JaxftError(f"end_lr is {end_lr}: it must lie between 0 and lr ({lr})")
    rest = max(total_steps - warmup_steps, 1)
    if schedule == "constant":
        main: Schedule = optax.constant_schedule(lr)
    elif schedule == "cosine":
        main = optax.cosine_decay_schedule(lr, rest, alpha=end_lr / lr)
    elif schedule == "linear":
        main = optax.linear_schedule(lr, end_lr, rest)
    else:
        if not step_every or step_every < 1:
            raise JaxftError("schedule 'step' needs step_every, e.g. '10 epochs'")
        main = optax.exponential_decay(lr, step_every, step_factor, staircase=True)
    if not warmup_steps:
        return main
    warmup = optax.linear_schedule(lr / warmup_steps, lr, max(warmup_steps - 1, 1))
    return optax.join_schedules([warmup, main], [warmup_steps])


def make_optimizer(
    params: Params,
    mask: Mask,
    *,
    name: str = "adamw",
    lr: float,
    total_steps: int,
    schedule: str = "cosine",
    warmup_steps: int = 0,
    end_lr: float = 0.0,
    step_every: int | None = None,
    step_factor: float = 0.1,
    momentum: float = 0.9,
    nesterov: bool = False,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
    groups: Sequence[Group] | None = None,
    options: Mapping[str, Any] | None = None,
) -> tuple[optax.GradientTransformation, Schedule]:
    """Makes the optimizer of the trainable subtree (`tree.split(params, mask)[0]`).

    Clipping, by the global norm over trainable leaves, comes first. Weight decay of `sgd` and `adam` is added to the
    gradient, as torch does; that of `adamw` is decoupled (Loshchilov & Hutter, 2019) and, as in torch, scaled by the
    learning rate.

    Args:
      params: the full parameters, arrays or abstract.
      mask: what is trained.
      name: "sgd", "adam", "adamw", or "module:function", an optax factory that takes `learning_rate` and `options`.
      lr, total_steps, schedule, warmup_steps, end_lr, step_every, step_factor: see `make_schedule`.
      momentum, nesterov: of sgd.
      b1, b2, eps: of adam and adamw.
      weight_decay: on leaves whose group has it; not of a "module:function", whose own goes into `options`.
      clip_norm: None does not clip.
      groups: see `jaxft.tuning.assign`; None decays kernels only.
      options: further arguments of a "module:function".

    Returns:
      The transform and the schedule; both count from 0 where the optimizer state is fresh.

    Raises:
      JaxftError: an argument that does not fit.
    """
    if weight_decay < 0 or (clip_norm is not None and clip_norm <= 0):
        raise JaxftError(f"weight_decay ({weight_decay}) must not be negative and clip_norm ({clip_norm}) must be positive")
    rate = make_schedule(
        lr,
        total_steps=total_steps,
        schedule=schedule,
        warmup_steps=warmup_steps,
        end_lr=end_lr,
        step_every=step_every,
        step_factor=step_factor,
    )
    if options and name in _NAMES:
        raise JaxftError(f"options ({', '.join(options)}) are for a 'module:function'; optimizer '{name}' takes none")
    if weight_decay and ":" in name:
        raise JaxftError(f"weight_decay does not reach the optimizer '{name}': set it to 0 and give it in options")
    trainable, _ = tree.split(params, mask)
    found = assign(groups, params)
    decayed = tree.map_with_path(lambda path, _: found[path].weight_decay, trainable)
    scales = tree.map_with_path(lambda path, _: found[path].lr_scale, trainable)
    decay = optax.add_decayed_weights(weight_decay, mask=decayed) if weight_decay else optax.identity()
    clip = optax.clip_by_global_norm(clip_norm) if clip_norm is not None else optax.identity()
    scaled = _scale_by_tree(scales) if any(scale != 1.0 for scale in tree.flatten(scales).values()) else optax.identity()
    descend = optax.scale_by_learning_rate(rate)
    if name == "sgd":
        if not 0 <= momentum < 1:
            raise JaxftError(f"momentum is {momentum}: it must lie in [0, 1)")
        trace = optax.trace(momentum, nesterov=nesterov) if momentum else optax.identity()
        return optax.chain(clip, decay, trace, scaled, descend), rate
    if name == "adam":
        return optax.chain(clip, decay, optax.scale_by_adam(b1, b2, eps), scaled, descend), rate
    if name == "adamw":
        return optax.chain(clip, optax.scale_by_adam(b1, b2, eps), decay, scaled, descend), rate
    if ":" not in name:
        raise JaxftError(
            f"no optimizer is called '{name}'{near(name, _NAMES)}; there are {', '.join(_NAMES)} and 'module:function'"
        )
    factory = import_function(name, "the optimizer")
    try:
        own = factory(learning_rate=rate, **(options or {}))
    except TypeError as error:
        raise JaxftError(f"the optimizer '{name}': {error}") from error
    return optax.chain(clip, own, scaled), rate


def _scale_by_tree(scales: Any) -> optax.GradientTransformation:
    """Multiplies each leaf's update by its own number."""

    def update(updates: Any, state: optax.EmptyState, params: Any = None) -> tuple[Any, optax.EmptyState]:
        del params
        return jax.tree.map(lambda leaf, scale: leaf * jnp.asarray(scale, leaf.dtype), updates, scales), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
