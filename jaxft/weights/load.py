"""Puts pretrained weights into a network: everything fits, or one error says all that does not."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxft.errors import JaxftError
from jaxft.models import Model, Pretrained, build, is_tag, pretrained_records, split_tag
from jaxft.models import pretrained as pretrained_record
from jaxft.preprocessing import Preprocessing
from jaxft.typing import ModelState, Params
from jaxft.weights import names
from jaxft.weights.fit import fit, head_of, prepared
from jaxft.weights.keras_files import plain
from jaxft.weights.readers import is_keras, read_with_metadata
from jaxft.weights.repository import is_repository, open_repository
from jaxft.weights.rules import Rule, destinations
from jaxft.weights.sources import fetch, file_sha256

OWN = "jaxft"
#: jaxft's names, as `convert_file` writes them.
OWN_NAMES = (Rule("params/{path}", "params/{path}"), Rule("batch_stats/{path}", "batch_stats/{path}"))


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What was loaded: reads as one line.

    Attributes:
      source: where from; "" for random weights.
      sha256: of the file.
      tag: of the weights; "" where they have no record.
      convention: whose names the file has.
      licence: of the weights; "" where it is not known.
      loaded: number of leaves taken from the file.
      new: parameters initialised afresh.
      ignored: tensors of the file that were not wanted.
      unwrapped: what stood around the tensors in the file: keys gone down, prefixes cut.
      resized: what position embeddings were brought from and to; "" where they fitted.
    """

    source: str
    sha256: str = ""
    tag: str = ""
    convention: str = ""
    licence: str = ""
    loaded: int = 0
    new: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    unwrapped: str = ""
    resized: str = ""

    def __str__(self) -> str:
        if not self.source:
            return "random initialisation"
        licence = f", licence {self.licence}" if self.licence else ""
        inside = f", inside {self.unwrapped}" if self.unwrapped else ""
        shown = self.new if len(self.new) <= 8 else (*self.new[:3], f"{len(self.new) - 3} more")
        new = f"; new: {', '.join(shown)}" if self.new else ""
        resized = f"; positions resized from {self.resized}" if self.resized else ""
        return f"{self.loaded} tensors from {self.source} (sha256 {self.sha256[:12]}{licence}{inside}){new}{resized}"


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


def create_model(name: str, num_classes: int | None = None, pretrained: str | bool | None = None, **options: Any) -> Created:
    """Makes a network with weights.

        model, params, model_state = jaxft.create_model("vgg16", num_classes=10, pretrained="imagenet")
        model, params, model_state = jaxft.create_model("resnet50.a1_in1k", pretrained=True)
        model, params, model_state = jaxft.create_model("hf:google/vit-base-patch16-224", pretrained=True)

    Args:
      name: one of `jaxft.list_models()`, and after a dot the tag of its weights; or a repository, `hf:OWNER/REPO[@REVISION]` or
        a folder, whose `config.json`, timm's or transformers', says which network it holds.
      num_classes: width of the logits; None is the weights' own, or 1,000. Another number than the weights' makes the
        head new; all other parameters are loaded.
      pretrained: a tag of the network (`imagenet`), a file, a URL, a `package:` source, `hf:OWNER/REPO[/FILE][@REVISION]` or a
        repository's folder; True is what the name says, a tag or a repository, or the network's default weights; None and False
        start from random weights.
      **options: see `load_model`.

    Raises:
      JaxftError: no such network or weights, or weights that do not fit, with all that does not.
    """
    loaded = load_model(name, num_classes, pretrained, **options)
    return Created(loaded.model, loaded.params, loaded.model_state)


def load_model(
    name: str,
    num_classes: int | None = None,
    pretrained: str | bool | None = None,
    *,
    head: str = "linear",
    in_channels: int = 3,
    dropout: float | None = None,
    drop_path: float | None = None,
    dtype: str = "float32",
    size: int | None = None,
    remat: str = "",
    seed: int = 0,
    draw: bool = True,
) -> Loaded:
    """Like `create_model`, with a report of what was loaded.

    Args:
      name, num_classes, pretrained: see `create_model`.
      head: "linear", "mlp", "cosine" or "cosine:WIDTH", or several, "linear+mlp"; see `jaxft.models.build`.
      in_channels: of the image; the first convolution is adapted: summed over its channels for 1, repeated and
        rescaled for more than 3, as timm does.
      dropout, drop_path: rates; None is the network's own.
      dtype: what is computed in.
      size: input size in pixels; None is the one that goes with the weights. Position embeddings of another size are
        resized as timm does.
      remat: stages that compute again in the backward pass what is inside each block, for less memory; see `build`.
      seed: of everything initialised afresh.
      draw: False leaves a network without weights undrawn: its arrays are shapes, for `jax.jit(model.init, out_shardings=...)`
        with `jax.random.key(seed)` to draw each device's part only, with the same numbers.
    """
    name, record, given = asked_for(name, pretrained)
    options: dict[str, Any] = {"head": head, "in_channels": in_channels, "dropout": dropout, "drop_path": drop_path}
    options |= {"dtype": dtype, "size": size, "remat": remat}
    # Options first: a bad one is found before anything is downloaded.
    model = build(name, num_classes, **options)
    if given is None:
        if record:  # the name's tag: random weights, but for images as these want them
            model = prepared(model, record.preprocessing, size)
        if not draw:
            return Loaded(model, *model.shapes, LoadReport(""))
        params, model_state = jax.device_get(jax.jit(model.init)(jax.random.key(seed)))
        return Loaded(model, params, model_state, LoadReport(""))

    path = fetch(given, sha256=record.sha256 if record else None, pin=bool(record and record.tag))
    found_there, metadata = read_with_metadata(path)
    tensors = named(path, found_there)
    digest = file_sha256(path)
    if record is None:  # a published file, given by its path
        record = next((r for r in pretrained_records(name) if r.sha256 and digest.startswith(r.sha256)), None)
    convention = convention_of(model, tensors, record)
    table = table_for(model, convention)
    if num_classes is None and (own := head_of(model, tensors, table)):
        num_classes = own[1]
    preprocessing = record.preprocessing if record else _preprocessing(metadata, path) or names.preprocessing(model, convention)
    fitted = fit(model, tensors, table, num_classes, options, preprocessing, seed)
    report = LoadReport(
        source=given,
        sha256=digest,
        tag=record.tag if record else "",
        convention=convention,
        licence=record.licence if record else metadata.get("licence", ""),
        loaded=fitted.loaded,
        new=fitted.new,
        ignored=fitted.ignored,
        unwrapped=metadata.get("unwrapped", ""),
        resized=fitted.resized,
    )
    return Loaded(fitted.model, fitted.params, fitted.model_state, report)


def asked_for(name: str, given: str | bool | None) -> tuple[str, Pretrained | None, str | None]:
    """(the network's name, the record of its weights where there is one, their source; None for random weights)."""
    for source in (name, given):
        if isinstance(source, str) and is_repository(source):
            return _of_repository(source, name, given)
    name, tag = split_tag(name)
    record = pretrained_record(name, tag) if tag else None
    if given is None or given is False:
        return name, record, None
    if given is True:
        record = record or pretrained_record(name)
        return name, record, record.source
    if record is not None and given != tag:
        raise JaxftError(f"'{name}.{tag}' names weights, and pretrained '{given}' others: give one of them")
    if not is_tag(given):
        return name, None, given
    try:
        record = pretrained_record(name, given)
    except JaxftError as error:
        raise JaxftError(f"{error} (or give a file)") from None
    return name, record, record.source


def _of_repository(source: str, name: str, given: str | bool | None) -> tuple[str, Pretrained, str | None]:
    """What `asked_for` gives where the repository `source` is what is given, or the name."""
    found = open_repository(source)
    if name not in (source, found.network):
        raise JaxftError(f"{source} holds a {found.network}, not a {name}")
    if given is True or given == source:
        weights = found.find_weights()
        return found.network, found.record(weights), weights
    if given:
        raise JaxftError(f"'{name}' names weights, and pretrained '{given}' others: give one of them")
    return found.network, found.record(), None


def _preprocessing(metadata: Mapping[str, str], path: Path) -> Preprocessing | None:
    """What a file that `convert_file` wrote says of its images."""
    if "preprocessing" not in metadata:
        return None
    try:
        return Preprocessing.from_json(json.loads(metadata["preprocessing"]))
    except (ValueError, TypeError, AttributeError) as error:
        raise JaxftError(f"{path}: its metadata has a preprocessing that cannot be read ({error})") from error


def named(path: Path, tensors: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """A file's tensors in names that tables know: those of Keras' containers are cut to the layers'."""
    return plain(tensors) if is_keras(path) else tensors


def convention_of(model: Model, tensors: Mapping[str, np.ndarray], record: Pretrained | None = None) -> str:
    """Whose names a file has: the record's, "jaxft", or the convention that knows the most of them."""
    if record is not None:
        return record.convention
    if any(key.startswith("params/") for key in tensors):
        return OWN
    known = names.conventions(model)
    return max(known, key=lambda convention: len(destinations(tensors, names.rules(model, convention))), default=OWN)


def table_for(model: Model, convention: str) -> tuple[Rule, ...]:
    """The table of a convention of `convention_of`."""
    return OWN_NAMES if convention == OWN else names.rules(model, convention)
