"""For every family of networks: tiny members, and how the libraries they come from make the same.

Read by the tests, which never call what makes theirs, and by scripts/make_zoo_fixtures.py and, for the convention "keras",
make_keras_fixtures.py, which do. A module here is called as its family is (`Architecture.family`), and has

  CASES: the tiny networks that are compared whole: at least one for each convention of names, and for each branch in the code.

What libraries have in full size, `original_name` and `transformers_config` of `jaxft.weights.names` say.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import json
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import seeded

from jaxft.models import Architecture, architecture_of, list_models

CLASSES = 10
SAMPLES = 12

#: Ends of the names of BatchNorm's statistics, torch's and Keras'.
STATISTICS = ("running_mean", "running_var", "moving_mean", "moving_variance")

#: Has torchvision, timm, transformers and torch as attributes; for cases of the convention "keras", keras and its applications.
Libraries = SimpleNamespace


@dataclasses.dataclass(frozen=True)
class Case:
    """A tiny network, and the same as another library makes it.

    Attributes:
      name: of the case, and of its fixture.
      architecture: ours.
      convention: of their names.
      theirs: makes theirs, without dropout, of `CLASSES` classes and for images of `size`.
      stages: our stage -> the submodule of theirs whose output is its map; of Keras the layer, with ":input" the one after.
      options: of `jaxft.models.build`.
      size, batch: of the images.
      channels_last: whether their maps are [B, H, W, C] already; maps of other than four dimensions are taken as they are.
      logits: what of their output is the logits; None: the output itself, or its `logits`.
      pixels: from our images to theirs: where they are in another order, or their network has layers before its first.
      aux: our auxiliary output -> what of their output in train mode is the same; 0.3 of its loss is added.
    """

    name: str
    architecture: Architecture
    convention: str
    theirs: Callable[[Libraries], Any]
    stages: Mapping[str, str]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    size: int = 64
    batch: int = 2
    channels_last: bool = False
    logits: Callable[[Any], Any] | None = None
    pixels: Callable[[np.ndarray], np.ndarray] = lambda images: images
    aux: Mapping[str, Callable[[Any], Any]] = dataclasses.field(default_factory=dict)


def bgr(images: np.ndarray) -> np.ndarray:
    """For networks that read blue, green, red."""
    return images[..., ::-1]


def families() -> dict[str, Any]:
    """Family -> its module here."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    return {name: importlib.import_module(f"{__name__}.{name}") for name in names}


def cases() -> dict[str, Case]:
    found = [case for family in families().values() for case in family.CASES]
    assert len({case.name for case in found}) == len(found)
    return {case.name: case for case in found}


@functools.cache
def full() -> dict[str, dict[str, Any]]:
    """Of every network in full size, by library: number of parameters, and `names_hash`."""
    return json.loads((Path(__file__).parent.parent / "fixtures" / "zoo" / "full.json").read_text())


@functools.cache
def smallest() -> list[str]:
    """The smallest network of each family."""
    found: dict[str, tuple[int, str]] = {}
    for name in list_models():
        counts, family = [entry["parameters"] for entry in full()[name].values()], architecture_of(name).family
        if counts and (family not in found or min(counts) < found[family][0]):
            found[family] = min(counts), name
    return [name for _, name in found.values()]


def digest(values: Mapping[str, Any]) -> np.ndarray:
    """f32 [len(values), 1 + SAMPLES]: of every tensor its norm and seeded entries."""
    rows = []
    for name, value in values.items():
        flat = np.asarray(value, np.float64).ravel()
        chosen = seeded.generator(0, f"digest|{name}").integers(0, flat.size, SAMPLES)
        rows.append(np.concatenate([[np.linalg.norm(flat)], flat[chosen]]))
    return np.asarray(rows, np.float32).reshape(len(rows), 1 + SAMPLES)


def names_hash(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Of all names and shapes of a state dict."""
    lines = sorted(f"{name} {list(shape)}" for name, shape in shapes.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
