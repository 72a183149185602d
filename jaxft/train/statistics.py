"""BatchNorm statistics: which of them move, and those of given weights computed anew over batches."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from jaxft import tree
from jaxft.errors import JaxftError
from jaxft.typing import ApplyFn, Batch, ModelState, Params, Trains


def moving(model_state: ModelState, train: bool | Trains) -> dict[str, Any]:
    """A tree of bools shaped like `model_state`: True for the statistics of modules in train mode."""

    def moves(path: str) -> bool:
        module = path.partition("/")[2].rpartition("/")[0]
        return train(module) if isinstance(train, Trains) else train

    return tree.map_with_path(lambda path, _: moves(path), model_state)


def update_statistics(
    apply: ApplyFn,
    params: Params,
    model_state: ModelState,
    batches: Iterable[Batch],
    *,
    train: bool | Trains = True,
    rng: jax.Array | None = None,
) -> ModelState:
    """The statistics of weights that no step has made, of an average say: the plain mean over `batches` of each batch's own.

    As `torch.optim.swa_utils.update_bn`: a batch is normalised with its own mean and variance, all batches count alike, and
    what the statistics were before does not matter. All rows of a batch count, padding too.

    Args:
      apply: the network on `batch["image"]`; its statistics move as BatchNorm's do, `(1 - m) * old + m * the batch's`. The same
        function is compiled once.
      params, model_state: the network.
      batches: training batches.
      train: which norms: all, or `jaxft.tuning.trains(mask)`; the statistics of the others stay. As in torch modules are in
        train mode, so dropout is on.
      rng: for dropout and its like; the key of batch i is `fold_in(rng, i)`. None is the key of 0.

    Raises:
      JaxftError: there is no batch, or statistics do not move.
    """
    key = jax.random.key(0) if rng is None else rng
    chosen = moving(model_state, train)
    moved, kept = tree.split(model_state, chosen)
    if not jax.tree.leaves(moved):
        return model_state
    mean, count = jax.tree.map(jnp.zeros_like, moved), 0
    for batch in batches:
        mean, stuck = _with_batch(mean, batch["image"], jnp.int32(count), params, kept, key, apply=apply, train=train)
        if not count and stuck:
            raise JaxftError("statistics of the network do not move in train mode, so they cannot be computed anew")
        count += 1
    if not count:
        raise JaxftError("there is not one batch to compute statistics over")
    return tree.merge(mean, kept)


@functools.partial(jax.jit, static_argnames=("apply", "train"))
def _with_batch(
    mean: Any,
    image: jax.Array,
    count: jax.Array,
    params: Params,
    kept: ModelState,
    key: jax.Array,
    *,
    apply: ApplyFn,
    train: bool | Trains,
) -> tuple[Any, jax.Array]:
    """The mean over one batch more than `count`, and whether statistics do not move. Compiled once for a network."""
    # Where they move, the statistics are no part of what is computed: of zeros the step gives m times the batch's own.
    zeros = jax.tree.map(jnp.zeros_like, mean)

    def step(old: ModelState) -> Any:
        state = apply(params, tree.merge(old, kept), image, train=train, rng=jax.random.fold_in(key, count))[1]
        return tree.split(state, moving(state, train))[0]

    scaled, back = jax.vjp(step, zeros)
    share = jax.tree.map(lambda old: 1 - old, back(jax.tree.map(jnp.ones_like, scaled))[0])  # m
    stuck = jnp.stack([(leaf <= 0).any() for leaf in jax.tree.leaves(share)]).any()
    own = jax.tree.map(jnp.divide, scaled, share)
    return jax.tree.map(lambda so_far, new: so_far + (new - so_far) / (count + 1), mean, own), stuck
