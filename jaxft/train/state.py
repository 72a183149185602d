"""All that changes from step to step, and nothing else: arrays, no functions."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from jaxft import tree
from jaxft.optim.moments import find
from jaxft.train.average import averaged_part, with_averages
from jaxft.typing import Mask, ModelState, Params


@flax.struct.dataclass
class TrainState:
    """The state of training.

    Attributes:
      step: int32 [], steps made; the clock everything else is a function of.
      params: the FULL parameters.
      model_state: BatchNorm statistics.
      opt_state: of the trainable leaves only.
      rng: uint32 key data of the run's base key; the key of a step is `fold_in(key, step)`.
      ema: running averages, `{"params": of the trained leaves, "model_state": of the statistics of norms that train}`, or None.
      fixed: what a loss reads and no step changes: `{"teacher": (params, model_state), "anchor": {...}}`, or None. It is in no
        checkpoint: a run makes it anew.
    """

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any
    rng: jax.Array
    ema: Any
    fixed: Any = None


def create_state(
    params: Params,
    model_state: ModelState,
    tx: optax.GradientTransformation,
    mask: Mask,
    *,
    rng: jax.Array,
    ema: bool = False,
) -> TrainState:
    """The state before the first step. Works on arrays, under `jit` and under `eval_shape`.

    Args:
      params, model_state: of the network.
      tx: a transform of the trainable subtree.
      mask: what is trained.
      rng: a key, `jax.random.key(seed)`.
      ema: keep running averages, of whatever kind; they start as copies.
    """
    trainable, _ = tree.split(params, mask)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=jax.tree.map(jnp.asarray, dict(params)),
        model_state=jax.tree.map(jnp.asarray, dict(model_state)),
        opt_state=tx.init(trainable),
        # Raw key data: a plain array, which every checkpoint format knows.
        rng=jax.random.key_data(rng),
        ema=jax.tree.map(jnp.copy, averaged_part(params, model_state, mask)) if ema else None,
    )


def eval_weights(state: TrainState) -> tuple[Params, ModelState]:
    """(params, model_state) to evaluate: what is averaged replaced by its averages, where those are kept."""
    found = averages(state)
    return (state.params, state.model_state) if found is None else with_averages(state.params, state.model_state, found)


def averages(state: TrainState) -> Any:
    """What stands for parts of the network in evaluations: its running averages, or a schedule-free optimizer's; else None."""
    return state.ema if state.ema is not None else _schedule_free(state)


def last_params(state: TrainState) -> Params:
    """The parameters that another phase goes on from: a schedule-free optimizer's averages, else as they are."""
    found = _schedule_free(state)
    return state.params if found is None else with_averages(state.params, {}, found)[0]


def _schedule_free(state: TrainState) -> dict[str, Params] | None:
    """Where a schedule-free optimizer wants to be evaluated; the parameters themselves are where it takes gradients."""
    node = next(find(state.opt_state, optax.contrib.ScheduleFreeState), None)
    if node is None:
        return None
    flat = tree.flatten(state.params)
    trained = tree.map_with_path(lambda path, _: flat[path], node.z)
    return {"params": optax.contrib.schedule_free_eval_params(node, trained)}
