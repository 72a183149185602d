"""Puts tensors into a network: everything fits, or one error says all that does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxft import tree
from jaxft.models import Model, build
from jaxft.preprocessing import Preprocessing
from jaxft.typing import ModelState, Params
from jaxft.weights.rules import IDENTITY, Op, Rule, convert, destinations


class Fitted(NamedTuple):
    """A network with arrays on the host; `loaded`, `new`, `ignored`, `resized` as of `LoadReport`."""

    model: Model
    params: Params
    model_state: ModelState
    loaded: int
    new: tuple[str, ...]
    ignored: tuple[str, ...]
    resized: str


def fit(
    model: Model,
    tensors: Mapping[str, np.ndarray],
    table: tuple[Rule, ...],
    num_classes: int | None,
    options: Mapping[str, Any],
    preprocessing: Preprocessing,
    seed: int,
) -> Fitted:
    """The network with tensors in it: a head that they cannot fill is new, the first convolution gets its channels, position
    embeddings the size.

    Args:
      model: built with `options`, of any number of classes.
      tensors: by their own names.
      table: what these are here.
      num_classes: None is 1,000.
      options: see `jaxft.models.build`; a `size` of None is that of the position embeddings, or the preprocessing's.
      preprocessing: of the weights.
      seed: of what is new.

    Raises:
      JaxftError: tensors that do not fit, with all that does not.
    """
    fitted, size, resized = _fit_positions(tensors, table, model, options["size"])
    model = prepared(build(model.name, num_classes, **{**options, "size": size}), preprocessing, size)
    # Shapes first: a mismatch is found before any memory is spent.
    params, model_state = model.shapes
    new, old_head = _new_leaves(model, tensors, table, params)
    adapted = _adapt_first_convolution(fitted, table, model)
    found = convert(adapted, table, {"params": params, **model_state}, new=new, ignore=old_head)
    complete = _fill(found.tree, model, jax.random.key(seed), found.new)
    return Fitted(
        model,
        complete["params"],
        {key: value for key, value in complete.items() if key != "params"},
        loaded=len(tree.flatten(found.tree)),
        new=tuple(path.removeprefix("params/") for path in found.new),
        ignored=found.ignored,
        resized=resized,
    )


def prepared(model: Model, preprocessing: Preprocessing, size: int | None) -> Model:
    """The network with the preprocessing of its weights, at `size`, or at their own."""
    preprocessing = preprocessing.with_channels(model.in_channels)
    return dataclasses.replace(model, preprocessing=preprocessing.with_size(size) if size else preprocessing)


def head_of(model: Model, tensors: Mapping[str, np.ndarray], table: tuple[Rule, ...]) -> tuple[str, int] | None:
    """The kind and the number of classes of the head in a file; None where it has none."""
    for key, path in destinations(tensors, table).items():
        if path.endswith("/bias") and not path.endswith("/hidden/bias") and _in_head(model, path):
            return "mlp" if path.endswith("/out/bias") else "linear", int(tensors[key].size)
    return None


def channels_of(model: Model, tensors: Mapping[str, np.ndarray], table: tuple[Rule, ...]) -> tuple[str, Op, int] | None:
    """The first convolution of a file: its name, how it becomes ours, and the number of its input channels."""
    path = f"params/{model.architecture.first_conv}"
    op = next((rule.op for rule in table if rule.dst == path), IDENTITY)
    for key, found in destinations(tensors, table).items():
        if found == path and tensors[key].ndim == 4:
            return key, op, op.forward(tensors[key]).shape[2]
    return None


def _in_head(model: Model, path: str) -> bool:
    return any(tree.matches(f"params/{pattern}", path) for pattern in model.stages["head"])


def _extents(shape: tuple[int, ...]) -> list[int]:
    """Whatever the layout: a dense kernel may be transposed, or written as a 1x1 convolution."""
    return sorted(extent for extent in shape if extent != 1)


def _new_leaves(
    model: Model, tensors: Mapping[str, np.ndarray], table: tuple[Rule, ...], params: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """Head leaves the file cannot fill (target paths), and the file's own head (foreign names).

    A head is taken whole or not at all: its kernel without its bias would be neither old nor new.
    """
    wanted = {f"params/{path}": leaf for path, leaf in tree.flatten(params).items() if model.stage_of(path) == "head"}
    heads = {key: path for key, path in destinations(tensors, table).items() if _in_head(model, path)}
    have = {path: tensors[key].shape for key, path in heads.items()}
    fits = have.keys() == wanted.keys() and all(_extents(have[path]) == _extents(leaf.shape) for path, leaf in wanted.items())
    return ([], []) if fits else (list(wanted), list(heads))


def _adapt_first_convolution(
    tensors: Mapping[str, np.ndarray], table: tuple[Rule, ...], model: Model
) -> Mapping[str, np.ndarray]:
    """Gives the first convolution the model's number of input channels: timm's rule (`adapt_input_conv`)."""
    found = channels_of(model, tensors, table)
    if found is None or found[2] == model.in_channels or found[2] == 0:
        return tensors
    (key, op, have), want = found, model.in_channels
    kernel = op.forward(tensors[key])
    if want == 1:
        adapted = kernel.sum(2, keepdims=True)
    else:
        repeated = np.concatenate([kernel] * -(-want // have), 2)
        adapted = repeated[:, :, :want] * np.asarray(have / want, kernel.dtype)
    return {**tensors, key: np.asarray(op.inverse(adapted))}


def _fit_positions(
    tensors: Mapping[str, np.ndarray], table: tuple[Rule, ...], model: Model, size: int | None
) -> tuple[Mapping[str, np.ndarray], int | None, str]:
    """(tensors with position embeddings for `size`, the size, what was resized); without `size` it is that of the file."""
    positions = model.architecture.positions
    if positions is None:
        return tensors, size, ""
    path = f"params/{positions.path}"
    key = next((key for key, found in destinations(tensors, table).items() if found == path), None)
    if key is None:
        return tensors, size, ""
    have = positions.size_of(tensors[key])
    if size is None or have == size:
        return tensors, have, ""
    return {**tensors, key: positions.resized(tensors[key], size)}, size, f"{have} to {size} pixels"


def _fill(found: Mapping[str, Any], model: Model, rng: jax.Array, new: tuple[str, ...]) -> dict[str, Any]:
    """Adds the new leaves, initialised; the rest of the network is never initialised at all."""
    if not new:
        return dict(found)

    def fresh(rng: jax.Array) -> dict[str, jax.Array]:
        params, state = model.init(rng)
        flat = tree.flatten({"params": params, **state})
        return {path: flat[path] for path in new}

    values = jax.device_get(jax.jit(fresh)(rng))
    return tree.unflatten({**tree.flatten(found), **values})
