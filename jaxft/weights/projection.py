"""The projection of CLIP's image towers into the space they share with texts: a part of the weights that no classifier has."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jaxft.errors import JaxftError
from jaxft.models import architecture_of, build
from jaxft.weights.load import asked_for, convention_of, named, table_for
from jaxft.weights.readers import read_with_metadata
from jaxft.weights.rules import Rule, destinations
from jaxft.weights.sources import fetch

#: Its name in files of Hugging Face's transformers; in timm's it is the head.
_TRANSFORMERS = "visual_projection.weight"


def image_projection(name: str, pretrained: str | bool | None) -> np.ndarray | None:
    """The projection [D, E] f32 in the weights of a network, so that `features @ projection` lies in the space of its texts.

    Args:
      name, pretrained: as of `create_model`.

    Returns:
      None where the weights hold none: of SigLIP, whose features lie in that space themselves, and of networks without texts.

    Raises:
      JaxftError: no such network or weights, or a projection of another width than the network's.
    """
    if architecture_of(asked_for(name, None)[0]).family != "clip":
        return None
    network, record, source = asked_for(name, pretrained)
    if source is None:
        return None
    path = fetch(source, sha256=record.sha256 if record else None, pin=bool(record and record.tag))
    model, tensors = build(network), named(path, read_with_metadata(path)[0])
    found = tensors.get(_TRANSFORMERS)
    if found is None:
        found = _head(tensors, table_for(model, convention_of(model, tensors, record)))
    if found is None:
        return None
    width = model.architecture.config.width
    if found.ndim != 2 or found.shape[1] != width:
        raise JaxftError(f"{source}: its projection is {list(found.shape)}, not [E, {width}]")
    return np.ascontiguousarray(found.T, np.float32)


def _head(tensors: Mapping[str, np.ndarray], table: tuple[Rule, ...]) -> np.ndarray | None:
    """timm's projection: a head [E, D] with a bias of zeros, or none; another head is a classifier's."""
    places = {place: key for key, place in destinations(tensors, table).items()}
    kernel, bias = places.get("params/head/kernel"), places.get("params/head/bias")
    if kernel is None or (bias is not None and np.any(np.asarray(tensors[bias]))):
        return None
    return np.asarray(tensors[kernel])
