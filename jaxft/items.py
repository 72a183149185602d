"""A training state as the items of a checkpoint, and what a checkpoint is of that holds other ones."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxft import tree
from jaxft.train import TrainState, averages

ITEMS = ("clock", "params", "model_state", "opt_state", "ema")
_OTHER = {
    "clock": "another kind of run",
    "params": "another network",
    "model_state": "another network",
    "opt_state": "another optimizer, or of other trained parts",
    "ema": "other averages",
}


def items_of(state: TrainState) -> dict[str, Any]:
    """The items of a state. A part without arrays has no item: Orbax refuses empty trees."""
    parts = {name: getattr(state, name) for name in ITEMS if name != "clock"}
    parts["clock"] = {"step": state.step, "rng": state.rng}
    return {name: part for name, part in parts.items() if jax.tree.leaves(part)}


def saved_items(state: TrainState) -> dict[str, Any]:
    """The items of a state, and what it is evaluated with where that is computed from it: who reads it needs no optimizer."""
    found = averages(state)
    return items_of(state) if found is None else {**items_of(state), "ema": found}


def one_copy(leaf: jax.Array) -> jax.Array | np.ndarray:
    """Of an array that all devices have whole, the first one's copy, which the first process writes.

    Given all, Orbax saves a slice of each copy, and every slice of every shape is a program that is compiled and run first.
    """
    if not leaf.is_fully_replicated:
        return leaf
    first = leaf.addressable_shards[0].data
    if leaf.is_fully_addressable:
        return first
    # Only the first process writes it; the copy is not the device's own memory, which the next step takes.
    return np.array(first) if jax.process_index() == 0 else np.asarray(first)


def difference(name: str, wanted: Any, found: Any, *, dtypes: bool) -> str:
    """What a checkpoint is of whose item differs from the one that is wanted, and how; "" where it does not.

    Args:
      name: of the item.
      wanted, found: trees of any kind, of arrays or what else has a shape and a dtype.
      dtypes: whether these count too.
    """
    differs = tree.diff(_flat(wanted), _flat(found), dtypes=dtypes)
    return f"{_OTHER[name]}: {differs}" if differs else ""


def _flat(part: Any) -> dict[str, Any]:
    """'/' path of every leaf of a tree of any kind -> leaf."""
    leaves = jax.tree_util.tree_flatten_with_path(part)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
