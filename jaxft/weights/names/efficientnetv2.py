"""EfficientNet-v2's names: ours are timm's."""

from __future__ import annotations

from jaxft.weights.names.efficientnet import torchvision
from jaxft.weights.names.mbconv import timm

CONVENTIONS = {"timm": timm, "torchvision": torchvision}
