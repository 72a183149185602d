"""What pretrained weights there are, and what is known of them."""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import json
from typing import Any

from jaxft.errors import JaxftError, near
from jaxft.models.registry import architecture_of
from jaxft.preprocessing import Preprocessing

#: Asks for a network's default weights for ImageNet's 1,000 classes, whatever their tag.
IMAGENET = "imagenet"


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Where weights are and what they are.

    Attributes:
      tag: name among the network's weights.
      source: `package:DIST/FILE`, `hf:OWNER/REPO/FILE` or a URL; see `jaxft.weights.fetch`.
      sha256: of the file, in full or its published first digits; "" where none is published.
      convention: whose names the file has; see `jaxft.weights.names`.
      num_classes: of the head in the file; 0 where it has none.
      preprocessing: what the weights were trained for.
      licence: of the weights, as published; "" where their publisher names none.
      accuracy: published ImageNet top-1 in percent, or None; `accuracy_source` says by whom.
    """

    tag: str
    source: str
    sha256: str
    convention: str
    num_classes: int
    preprocessing: Preprocessing
    licence: str
    accuracy: float | None
    accuracy_source: str


@dataclasses.dataclass(frozen=True)
class Size:
    """How large a network is.

    Attributes:
      parameters: with a head of 1,000 classes.
      flops: of one image; a multiply-add is two, products with padding zeros are not counted.
      size: side of that image in pixels.
    """

    parameters: int
    flops: int
    size: int


@functools.cache
def _sizes() -> dict[str, Size]:
    """Written by scripts/measure_zoo.py."""
    found = json.loads((importlib.resources.files("jaxft.models") / "figures.json").read_text())
    return {name: Size(**figures) for name, figures in found.items()}


def size_of(name: str) -> Size:
    """How large a network is.

    Raises:
      JaxftError: no such network.
    """
    architecture_of(name)
    return _sizes()[name]


@functools.cache
def _records() -> dict[str, list[dict[str, Any]]]:
    """Written by scripts/read_pretrained.py and read_keras_pretrained.py from what the publishers' own packages say."""
    found: dict[str, list[dict[str, Any]]] = {}
    for file in ("pretrained.json", "pretrained_keras.json"):
        for name, records in json.loads((importlib.resources.files("jaxft.models") / file).read_text()).items():
            found.setdefault(name, []).extend(records)
    return found


def split_tag(name: str) -> tuple[str, str]:
    """("resnet50", "a1_in1k") of "resnet50.a1_in1k"; the tag is "" where there is none, as after "module:function"."""
    if ":" in name:
        return name, ""
    network, _, tag = name.partition(".")
    return network, tag


def is_tag(given: str) -> bool:
    """Whether what names weights is a tag, not a file, URL, `package:` or `hf:` source."""
    return not any(mark in given for mark in ":/.")


def pretrained_records(name: str) -> list[Pretrained]:
    """All pretrained weights known for a network, the default first.

    Raises:
      JaxftError: no such network.
    """
    architecture_of(name)
    found = []
    for record in _records().get(name, []):
        found.append(Pretrained(**{**record, "preprocessing": Preprocessing.from_json(record["preprocessing"])}))
    return found


def pretrained(name: str, tag: str = "") -> Pretrained:
    """The record of a network's weights.

    Args:
      name: of the network.
      tag: of the weights; "" is the default, "imagenet" the default for ImageNet's 1,000 classes.

    Raises:
      JaxftError: no such network or tag.
    """
    records = {record.tag: record for record in pretrained_records(name)}
    if tag == "" and records:
        return next(iter(records.values()))
    if tag == IMAGENET and tag not in records:
        fit = [record for record in records.values() if record.num_classes == 1000]
        if fit:
            return fit[0]
    if tag not in records:
        asked = f" '{tag}'{near(tag, [IMAGENET, *records] if records else [])}" if tag else ""
        raise JaxftError(f"{name} has no weights{asked}; it has {', '.join(records) or 'none'}")
    return records[tag]
