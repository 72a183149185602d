"""EfficientNet-v2's names: ours are timm's."""

from __future__ import annotations

from jaxft.models.efficientnetv2 import ARCHITECTURES
from jaxft.models.mbconv import Config
from jaxft.weights.names import keras
from jaxft.weights.names.efficientnet import keras_layers, torchvision
from jaxft.weights.names.mbconv import keras_of, padded, timm


def _keras(config: Config) -> keras.Network:
    return keras.Network(keras_layers(config, depthwise="dwconv2"))


CONVENTIONS = {
    "timm": timm,
    "torchvision": padded(torchvision, same=False),
    **keras.conventions(keras_of(_keras)),
}
_TORCHVISION = ("efficientnet_v2_s", "efficientnet_v2_m", "efficientnet_v2_l")
ORIGINALS = {
    "timm": {name: name for name in ARCHITECTURES if name not in _TORCHVISION and not name.startswith("keras_")},
    "torchvision": {name: name for name in _TORCHVISION},
    "keras": {
        f"keras_efficientnetv2_{member}": f"EfficientNetV2{member.upper()}"
        for member in ("b0", "b1", "b2", "b3", "s", "m", "l")
    },
}
