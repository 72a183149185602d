"""ResNet's names: ours are torchvision's, which timm shares."""

from __future__ import annotations

from jaxft.models.resnet import ARCHITECTURES, Config
from jaxft.weights.names.names import Names


def _same(config: Config) -> Names:
    return Names()


CONVENTIONS = {"torchvision": _same, "timm": _same}
ORIGINALS = {
    "torchvision": {name: name for name in ARCHITECTURES if name != "resnext101_32x4d"},
    "timm": {name: name for name in ARCHITECTURES},
}
