"""MobileNet-v3's names: ours are timm's."""

from __future__ import annotations

import dataclasses
import re

from jaxft.models.mbconv import LAYERS, Config
from jaxft.models.mobilenetv3 import ARCHITECTURES
from jaxft.weights.names import keras, mbconv
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


def _keras(config: Config) -> keras.Network:
    """The classifier is a convolution there. Published files have slashes and other endings in the names of layers."""
    layers = [keras.conv("conv_stem", "conv"), keras.norm("bn1", "conv_bn")]
    for ours, block, _, number in mbconv.blocks(config):
        if block.kind == "plain":
            layers += mbconv.keras_block(ours, block, [("conv_1", "conv_1_bn")], ("", ""))
            continue
        own = f"expanded_conv_{number}" if number else "expanded_conv"
        parts = ("expand", "depthwise", "project")[-len(LAYERS[block.kind]) :]
        squeeze = (f"{own}_squeeze_excite_conv", f"{own}_squeeze_excite_conv_1")
        layers += mbconv.keras_block(ours, block, [(f"{own}_{part}", f"{own}_{part}_bn") for part in parts], squeeze)
    layers.append(keras.conv("conv_head", "conv_2"))
    layers.append(keras.conv("classifier", "logits", op=keras.DENSE_AS_CONV))
    return keras.Network([dataclasses.replace(layer, former=(_former(layer.name),)) for layer in layers])


def _former(name: str) -> str:
    """`expanded_conv_1_squeeze_excite_Conv` of `expanded_conv_1_squeeze_excite_conv`."""
    name = re.sub(r"^(conv|logits)", lambda start: start[1].capitalize(), name)
    return re.sub(r"_bn$", "_BatchNorm", name.replace("excite_conv", "excite_Conv"))


CONVENTIONS = {
    "timm": mbconv.timm,
    "torchvision": mbconv.padded(_torchvision, same=False),
    **keras.conventions(mbconv.keras_of(_keras)),
}
_KERAS = {name: f"MobileNetV3{'Large' if 'large' in name else 'Small'}" for name in ARCHITECTURES if name.startswith("keras_")}
_TORCHVISION = ("mobilenet_v3_large", "mobilenet_v3_small")
ORIGINALS = {
    "timm": {name: name for name in ARCHITECTURES if name not in _TORCHVISION and name not in _KERAS},
    "torchvision": {name: name for name in _TORCHVISION},
    "keras": _KERAS,
}
ARGUMENTS = {name: {"alpha": int(name[-3:]) / 100, "minimalistic": "minimal" in name} for name in _KERAS}
