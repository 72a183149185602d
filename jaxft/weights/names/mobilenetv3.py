"""MobileNet-v3's names: ours are timm's."""

from __future__ import annotations

from jaxft.models.mbconv import Config
from jaxft.models.mobilenetv3 import ARCHITECTURES
from jaxft.weights.names import mbconv
from jaxft.weights.names.names import Names
from jaxft.weights.rules import Op

_DENSE_TO_1X1 = Op("dense to 1x1 conv", lambda x: x.T[None, None], lambda x: x[0, 0].T)


def _torchvision(config: Config) -> Names:
    """Blocks are numbered through. The convolution after the pooling is a dense layer there."""
    parts = {"conv_stem": "features.0.0", "bn1": "features.0.1", "conv_head": "classifier.0", "classifier": "classifier.3"}
    for ours, block, _, number in mbconv.blocks(config):
        own = f"features.{number + 1}"
        if block.kind == "plain":
            parts |= mbconv.layers(ours, block, [(f"{own}.0", f"{own}.1")])
        else:
            parts |= mbconv.sequence(ours, block, f"{own}.block")
    return Names(parts, ops={"conv_head/kernel": _DENSE_TO_1X1})


CONVENTIONS = {"timm": mbconv.timm, "torchvision": mbconv.padded(_torchvision, same=False)}
_TORCHVISION = ("mobilenet_v3_large", "mobilenet_v3_small")
ORIGINALS = {
    "timm": {name: name for name in ARCHITECTURES if name not in _TORCHVISION},
    "torchvision": {name: name for name in _TORCHVISION},
}
