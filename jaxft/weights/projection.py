"""The projection of CLIP's image towers into the space they share with texts: a part of the weights that no classifier has."""

from __future__ import annotations

import numpy as np

from jaxft.errors import JaxftError
from jaxft.models import build
from jaxft.weights.load import asked_for, convention_of, named, table_for
from jaxft.weights.readers import read_with_metadata
from jaxft.weights.rules import destinations
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
    network, record, source = asked_for(name, pretrained or None)
    model = build(network)
    if source is None or model.architecture.family != "clip":
        return None
    path = fetch(source, sha256=record.sha256 if record else None, pin=bool(record and record.tag))
    tensors = named(path, read_with_metadata(path)[0])
    width = model.architecture.config.width
    found = tensors.get(_TRANSFORMERS)
    if found is None:
        table = table_for(model, convention_of(model, tensors, record))
        places = {place: key for key, place in destinations(tensors, table).items()}
        if "params/head/kernel" not in places:
            return None
        bias = places.get("params/head/bias")
        if bias is not None and np.any(np.asarray(tensors[bias])):  # a classifier: a projection has no bias, timm's is of zeros
            return None
        found = tensors[places["params/head/kernel"]]
    found = np.asarray(found, np.float32)
    if found.ndim != 2 or found.shape[1] != width:
        raise JaxftError(f"{source}: its projection is {list(found.shape)}, not [E, {width}]")
    return np.ascontiguousarray(found.T)
