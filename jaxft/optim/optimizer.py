"""Optimizers for the trainable part: optax transforms with schedules, clipping, decay and parameter groups."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxft import tree
from jaxft.errors import JaxftError, near
from jaxft.losses import import_function
from jaxft.optim.methods import CYCLED, METHODS, cycled_core, is_set, make_core, settings_of
from jaxft.optim.moments import Generations, by_label, pull_to_start, scale_by_factor
from jaxft.optim.schedules import Schedule, make_schedule, momentum_cycle
from jaxft.tuning.groups import Group, assign
from jaxft.typing import Mask, Params


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
    schedule_options: Mapping[str, Any] | None = None,
    momentum: float | None = None,
    nesterov: bool | None = None,
    b1: float | None = None,
    b2: float | None = None,
    eps: float | None = None,
    weight_decay: float = 0.0,
    l2_sp: float | None = None,
    l2_sp_head: float | None = 0.01,
    clip_norm: float | None = None,
    groups: Sequence[Group] | None = None,
    options: Mapping[str, Any] | None = None,
    head: Collection[str] = (),
    generations: Mapping[str, str] | None = None,
) -> tuple[optax.GradientTransformation, Schedule]:
    """Makes the optimizer of the trainable subtree (`tree.split(params, mask)[0]`).

    Clipping, by the global norm over trainable leaves, comes first. Weight decay of sgd, adam, nadam, adamax, rmsprop, lars and
    schedule_free_sgd is added to the gradient, as torch does; that of the others is decoupled (Loshchilov & Hutter, 2019) and,
    as in torch, scaled by the learning rate. LARS and LAMB adapt to the length of weights whose group decays, as timm does.

    Args:
      params: the full parameters, arrays or abstract.
      mask: what is trained.
      name: a key of `jaxft.optim.methods.METHODS`, or "module:function", an optax factory that takes `learning_rate` and
        `options`.
      lr, total_steps, schedule, warmup_steps, end_lr, step_every, step_factor: see `make_schedule`.
      schedule_options: its `options`.
      momentum, nesterov, b1, b2, eps: of the optimizers that have them; None is the optimizer's own.
      weight_decay: on leaves whose group has it; not of a "module:function", whose own goes into `options`.
      l2_sp: in the place of weight decay and on the same leaves: a pull of this strength to the values that the optimizer is
        started with (Li et al., 2018); `l2_sp_head` is the decay of those in `head`, which None pulls like the others.
      clip_norm: None does not clip.
      groups: see `jaxft.tuning.assign`; None decays kernels only.
      options: further settings of the optimizer (see `jaxft.optim.methods`), or arguments of a "module:function".
      head: '/' paths of the leaves of the new head.
      generations: the label of each trained leaf, see `jaxft.optim.moments.Generations`; None is one for all.

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
        options=schedule_options,
    )
    given = {"momentum": momentum, "nesterov": nesterov, "b1": b1, "b2": b2, "eps": eps}
    trainable, _ = tree.split(params, mask)
    found = assign(groups, params)
    decayed = tree.map_with_path(lambda path, _: found[path].weight_decay, trainable)
    scales = tree.map_with_path(lambda path, _: found[path].lr_scale, trainable)
    clip = optax.clip_by_global_norm(clip_norm) if clip_norm is not None else optax.identity()
    scaled = _scale_by_tree(scales) if any(scale != 1.0 for scale in tree.flatten(scales).values()) else optax.identity()
    factor = scale_by_factor() if schedule == "plateau" else optax.identity()
    cycle = momentum_cycle(schedule_options, total_steps)
    if cycle is not None and ":" in name:
        raise JaxftError(f"schedule_options.cycle_momentum does not reach the optimizer '{name}': set it to False")
    if ":" in name:
        return optax.chain(clip, _imported(name, rate, weight_decay, l2_sp, given, options or {}), scaled, factor), rate
    if name not in METHODS:
        raise JaxftError(
            f"no optimizer is called '{name}'{near(name, METHODS)}; there are {', '.join(METHODS)} and 'module:function'"
        )
    method, settings = METHODS[name], settings_of(name, given, options or {})
    if cycle is None:
        core = make_core(name, settings, trainable, head)
    else:
        core = cycled_core(name, settings, cycle)
        if given[key := CYCLED[name]] is not None:
            raise JaxftError(f"{key} is {given[key]}, and schedule_options.cycle_momentum cycles it: set one of them to None")
    decay = _decay(name, weight_decay, l2_sp, l2_sp_head, decayed, head)
    trust = optax.masked(optax.scale_by_trust_ratio(), decayed) if method.trust == "after" else optax.identity()
    before, after = (optax.identity(), decay) if method.decoupled else (decay, optax.identity())
    descend = optax.scale_by_learning_rate(rate)
    if method.free:
        if schedule != "constant":
            raise JaxftError(
                f"optimizer '{name}' needs no schedule: set schedule to 'constant', not '{schedule}' (a warm-up may stay)"
            )
        inner = optax.chain(before, core, after, scaled, descend)
        # optax counts the averages' weights from 1, all else from 0.
        return optax.chain(clip, optax.contrib.schedule_free(inner, lambda count: rate(count - 1), settings["b1"])), rate
    if method.trust == "before":
        before = _scale_to_weights(settings["trust"], weight_decay, decayed)
    labels = generations if generations is not None else dict.fromkeys(tree.paths(trainable), "all")
    moments = by_label(dict.fromkeys(dict.fromkeys(labels.values()), core), labels, Generations)
    return optax.chain(clip, before, moments, after, trust, scaled, factor, descend), rate


def _imported(
    name: str, rate: Schedule, weight_decay: float, l2_sp: float | None, given: Mapping[str, Any], options: Mapping[str, Any]
) -> optax.GradientTransformation:
    if weight_decay or l2_sp is not None:
        what = "weight_decay" if weight_decay else "l2_sp"
        raise JaxftError(
            f"{what} does not reach the optimizer '{name}': set it to {0 if weight_decay else None} and give it in options"
        )
    for key, value in given.items():
        if is_set(value):
            raise JaxftError(f"{key} does not reach the optimizer '{name}': give it in options")
    factory = import_function(name, "the optimizer")
    try:
        own: optax.GradientTransformation = factory(learning_rate=rate, **options)
    except TypeError as error:
        raise JaxftError(f"the optimizer '{name}': {error}") from error
    return own


def _decay(
    name: str, weight_decay: float, l2_sp: float | None, l2_sp_head: float | None, decayed: Any, head: Collection[str]
) -> optax.GradientTransformation:
    if l2_sp is None:
        return optax.add_decayed_weights(weight_decay, mask=decayed) if weight_decay else optax.identity()
    decays = 0.0 if l2_sp_head is None else l2_sp_head
    if not l2_sp >= 0 or not decays >= 0:
        raise JaxftError(f"l2_sp ({l2_sp}) and l2_sp_head ({l2_sp_head}) must not be negative")
    if weight_decay:
        raise JaxftError(f"l2_sp ({l2_sp}) takes the place of weight_decay ({weight_decay}): set weight_decay to 0")
    if name == "lars":
        raise JaxftError("optimizer 'lars' has its own weight decay: set l2_sp to None, or take another optimizer")
    new = tree.map_with_path(lambda path, _: l2_sp_head is not None and path in head, decayed)
    return pull_to_start(l2_sp, decays, decayed, new)


def _scale_by_tree(scales: Any) -> optax.GradientTransformation:
    """Multiplies each leaf's update by its own number."""
    return optax.stateless(
        lambda updates, _: jax.tree.map(lambda leaf, scale: leaf * jnp.asarray(scale, leaf.dtype), updates, scales)
    )


def _scale_to_weights(trust: float, weight_decay: float, decayed: Any) -> optax.GradientTransformation:
    """LARS (You et al., 2017): (g + d w) * trust |w| / (|g| + d |w|), of leaves that decay; the others stay."""

    def scaled(gradient: jax.Array, weights: jax.Array, decays: bool) -> jax.Array:
        if not decays:
            return gradient
        length, slope = optax.tree.norm(weights), optax.tree.norm(gradient)
        ratio = trust * length / (slope + weight_decay * length + 1e-8)
        return (gradient + weight_decay * weights) * jnp.where((length > 0) & (slope > 0), ratio, 1.0)

    return optax.stateless(lambda updates, params: jax.tree.map(scaled, updates, params, decayed))
