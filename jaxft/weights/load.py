"""Puts pretrained weights into a network: everything fits, or one error says all that does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxft import tree
from jaxft.errors import JaxftError, near
from jaxft.models import Model, Pretrained, build, pretrained, pretrained_records
from jaxft.preprocessing import Preprocessing
from jaxft.typing import ModelState, Params
from jaxft.weights import tables
from jaxft.weights.readers import read_with_metadata
from jaxft.weights.rules import Rule, convert, destination
from jaxft.weights.sources import fetch, file_sha256


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What was loaded: reads as one line.

    Attributes:
      source: where from; "" for random weights.
      sha256: of the file.
      licence: of the weights; "" where it is not known.
      loaded, new: numbers of leaves taken from the file and initialised afresh.
      ignored: tensors of the file that were not wanted.
    """

    source: str
    sha256: str = ""
    licence: str = ""
    loaded: int = 0
    new: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.source:
            return "random initialisation"
        licence = f", licence {self.licence}" if self.licence else ""
        new = f"; new: {', '.join(self.new)}" if self.new else ""
        return f"{self.loaded} tensors from {self.source} (sha256 {self.sha256[:12]}{licence}){new}"


class Loaded(NamedTuple):
    """A network with its arrays, and what they are made of."""

    model: Model
    params: Params
    model_state: ModelState
    report: LoadReport


class Created(NamedTuple):
    """A network and its arrays."""

    model: Model
    params: Params
    model_state: ModelState


def create_model(name: str, num_classes: int | None = None, pretrained: str | None = None, **options: Any) -> Created:
    """Makes a network with weights.

        model, params, model_state = jaxft.create_model("vgg16", num_classes=10, pretrained="imagenet")

    Args:
      name: one of `jaxft.list_models()`.
      num_classes: width of the logits; None is the weights' own, or 1,000. Another number than the weights' makes the head
        new; all other parameters are loaded.
      pretrained: a tag of the network (`imagenet`), a file, a URL, `package:` or `hf:` source; None starts from random
        weights.
      **options: see `load_model`.

    Raises:
      JaxftError: no such network or weights, or weights that do not fit, with all that does not.
    """
    loaded = load_model(name, num_classes, pretrained, **options)
    return Created(loaded.model, loaded.params, loaded.model_state)


def load_model(
    name: str,
    num_classes: int | None = None,
    pretrained: str | None = None,
    *,
    head: str = "linear",
    in_channels: int = 3,
    dropout: float | None = None,
    drop_path: float | None = None,
    dtype: str = "float32",
    size: int | None = None,
    seed: int = 0,
) -> Loaded:
    """Like `create_model`, with a report of what was loaded.

    Args:
      name, num_classes, pretrained: see `create_model`.
      head: "linear" or "mlp".
      in_channels: of the image; the first convolution is adapted: summed over its channels for 1, repeated and rescaled for
        more than 3, as timm does.
      dropout, drop_path: rates; None is the network's own.
      dtype: what is computed in.
      size: input size in pixels; None is the one that goes with the weights.
      seed: of everything initialised afresh.
    """
    record = _record(name, pretrained)
    if num_classes is None:
        num_classes = record.num_classes if record else None
    options = {"head": head, "in_channels": in_channels, "dropout": dropout, "drop_path": drop_path, "dtype": dtype}
    model = build(name, num_classes, **options, size=size)  # type: ignore[arg-type]
    if record is not None:
        model = dataclasses.replace(model, preprocessing=_preprocessing(record.preprocessing, in_channels, size))
    rng = jax.random.key(seed)
    if pretrained is None:
        params, model_state = jax.jit(model.init)(rng)
        return Loaded(model, _numpy(params), _numpy(model_state), LoadReport(""))

    source = record.source if record else pretrained
    path = fetch(source, sha256=record.sha256 if record else None)
    tensors, metadata = read_with_metadata(path)
    table = _table(name, tensors, record)
    # Shapes first: a mismatch is found before any memory is spent.
    params, model_state = jax.eval_shape(model.init, rng)
    new, old_head = _new_leaves(model, tensors, table, params)
    adapted = _adapt_first_convolution(tensors, table, model, params)
    found = convert(adapted, table, {"params": params, **model_state}, new=new, ignore=old_head)
    complete = _fill(found.tree, model, rng, found.new)
    report = LoadReport(
        source=source,
        sha256=file_sha256(path),
        licence=record.licence if record else metadata.get("licence", ""),
        loaded=len(tree.flatten(found.tree)),
        new=tuple(path.removeprefix("params/") for path in found.new),
        ignored=found.ignored,
    )
    state = {key: value for key, value in complete.items() if key != "params"}
    return Loaded(model, complete["params"], state, report)


def _record(name: str, given: str | None) -> Pretrained | None:
    """The registry's record, where `given` is a tag and not a source."""
    if given is None:
        return None
    records = pretrained_records(name)
    if any(record.tag == given for record in records):
        return pretrained(name, given)
    if ":" not in given and "/" not in given and "." not in given:
        tags = [record.tag for record in records]
        raise JaxftError(f"{name} has no weights '{given}'{near(given, tags)}; it has {', '.join(tags) or 'none'} (or give a file)")
    return None


def _preprocessing(own: Preprocessing, channels: int, size: int | None) -> Preprocessing:
    own = own.with_channels(channels)
    return own if size is None else own.with_size(size)


def _table(name: str, tensors: Mapping[str, np.ndarray], record: Pretrained | None) -> tuple[Rule, ...]:
    """The record's table, or the one that knows the most of the file's names."""
    if record is not None:
        return tables.rules(name, record.convention)
    if any(key.startswith("params/") for key in tensors):
        return tuple(Rule(key, key) for key in tensors)
    candidates = [tables.rules(name, convention) for convention in tables.conventions(name)]
    return max(candidates, key=lambda table: len(_paths(tensors, table)))


def _paths(tensors: Mapping[str, np.ndarray], table: tuple[Rule, ...]) -> dict[str, str]:
    """Foreign name -> target path, for the names the table knows."""
    found = {key: destination(key, table) for key in tensors}
    return {key: path for key, path in found.items() if path is not None}


def _new_leaves(
    model: Model, tensors: Mapping[str, np.ndarray], table: tuple[Rule, ...], params: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """Head leaves the file cannot fill (target paths), and the file's own head (foreign names).

    A head is taken whole or not at all: its kernel without its bias would be neither old nor new.
    """
    wanted = {f"params/{path}": leaf for path, leaf in tree.flatten(params).items() if model.stage_of(path) == "head"}
    paths = _paths(tensors, table)
    patterns = [f"params/{pattern}" for pattern in model.stages["head"]]
    heads = {key: path for key, path in paths.items() if any(tree.matches(pattern, path) for pattern in patterns)}
    have = {path: tensors[key].shape for key, path in heads.items()}
    fits = have.keys() == wanted.keys() and all(
        sorted(have[path]) == sorted(leaf.shape) for path, leaf in wanted.items()
    )
    return ([], []) if fits else (list(wanted), list(heads))


def _adapt_first_convolution(
    tensors: Mapping[str, np.ndarray], table: tuple[Rule, ...], model: Model, params: Mapping[str, Any]
) -> Mapping[str, np.ndarray]:
    path = f"params/{model.first_conv}"
    key = next((key for key, found in _paths(tensors, table).items() if found == path), None)
    if key is None:
        return tensors
    # torch keeps input channels on axis 1 of OIHW, jaxft on axis 2 of HWIO.
    kernel, axis = tensors[key], 2 if key == path else 1
    have, want = kernel.shape[axis], model.in_channels
    if kernel.ndim != 4 or have == want:
        return tensors
    if want == 1:
        adapted = kernel.sum(axis, keepdims=True)
    else:
        repeated = np.concatenate([kernel] * -(-want // have), axis)
        adapted = np.take(repeated, range(want), axis) * np.asarray(have / want, kernel.dtype)
    return {**tensors, key: adapted}


def _fill(found: Mapping[str, Any], model: Model, rng: jax.Array, new: tuple[str, ...]) -> dict[str, Any]:
    """Adds the new leaves, initialised; the rest of the network is never initialised at all."""
    if not new:
        return dict(found)

    def fresh(rng: jax.Array) -> dict[str, jax.Array]:
        params, state = model.init(rng)
        flat = tree.flatten({"params": params, **state})
        return {path: flat[path] for path in new}

    values = _numpy(jax.jit(fresh)(rng))
    return tree.unflatten({**tree.flatten(found), **values})


def _numpy(found: Any) -> Any:
    return jax.tree.map(np.asarray, found)
