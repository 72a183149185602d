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


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Where weights are and what they are.

    Attributes:
      tag: name among the network's weights.
      source: `package:DIST/FILE` or a URL; see `jaxft.weights.fetch`.
      sha256: of the file, in full or its published first digits.
      convention: whose names the file has; see `jaxft.weights.tables`.
      num_classes: of the head in the file.
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


@functools.cache
def _records() -> dict[str, list[dict[str, Any]]]:
    """Written by scripts/read_pretrained.py from what the publishers' own packages say."""
    return json.loads((importlib.resources.files("jaxft.models") / "pretrained.json").read_text())


def pretrained_records(name: str) -> list[Pretrained]:
    """All pretrained weights known for a network, the default (`imagenet`) first."""
    architecture_of(name)
    found = []
    for record in _records().get(name, []):
        found.append(Pretrained(**{**record, "preprocessing": Preprocessing.from_json(record["preprocessing"])}))
    return found


def pretrained(name: str, tag: str) -> Pretrained:
    """The record of a network's weights.

    Raises:
      JaxftError: no such network or tag.
    """
    records = {record.tag: record for record in pretrained_records(name)}
    if tag not in records:
        raise JaxftError(f"{name} has no weights '{tag}'{near(tag, records)}; it has {', '.join(records) or 'none'}")
    return records[tag]
