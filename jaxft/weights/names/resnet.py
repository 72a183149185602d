"""ResNet's names: ours are torchvision's, which timm shares."""

from __future__ import annotations

from jaxft.models.resnet import Config
from jaxft.weights.names.names import Names


def _same(config: Config) -> Names:
    return Names()


CONVENTIONS = {"torchvision": _same, "timm": _same}
