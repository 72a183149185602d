"""EfficientNet-v2's names: ours are timm's."""

from __future__ import annotations

from jaxft.models.efficientnetv2 import ARCHITECTURES
from jaxft.weights.names.efficientnet import torchvision
from jaxft.weights.names.mbconv import padded, timm

CONVENTIONS = {"timm": timm, "torchvision": padded(torchvision, same=False)}
_TORCHVISION = ("efficientnet_v2_s", "efficientnet_v2_m", "efficientnet_v2_l")
ORIGINALS = {
    "timm": {name: name for name in ARCHITECTURES if name not in _TORCHVISION},
    "torchvision": {name: name for name in _TORCHVISION},
}
