"""SqueezeNet's names: ours are torchvision's."""

from __future__ import annotations

from jaxft.models.squeezenet import ARCHITECTURES, Config
from jaxft.weights.names.names import Names
from jaxft.weights.rules import POINTWISE


def _torchvision(config: Config) -> Names:
    """The head is a 1x1 convolution there, a dense layer on each pixel here."""
    return Names(ops={"classifier/1/kernel": POINTWISE})


CONVENTIONS = {"torchvision": _torchvision}
ORIGINALS = {"torchvision": {name: name for name in ARCHITECTURES}}
