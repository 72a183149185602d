"""VGG's names: ours are torchvision's."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxft.models.vgg import ARCHITECTURES, Config
from jaxft.preprocessing import CAFFE
from jaxft.weights.names import keras
from jaxft.weights.names.names import Names
from jaxft.weights.rules import POINTWISE, Op, flatten_chw


def _torchvision(config: Config) -> Names:
    return Names(ops={"classifier/0/kernel": flatten_chw(config.widths[-1], 7, 7)})


def _timm(config: Config) -> Names:
    """timm writes the two inner dense layers as convolutions."""
    flat, channels = flatten_chw(config.widths[-1], 7, 7), config.widths[-1]

    def to_conv(x: np.ndarray) -> np.ndarray:
        return np.asarray(flat.inverse(x)).reshape(-1, channels, 7, 7)

    first = Op("conv to flatten", lambda x: flat.forward(x.reshape(x.shape[0], -1)), to_conv)
    return Names(
        {"classifier/0": "pre_logits.fc1", "classifier/3": "pre_logits.fc2", "classifier/6": "head.fc"},
        ops={"classifier/0/kernel": first, "classifier/3/kernel": POINTWISE},
    )


def _keras(config: Config) -> keras.Network | None:
    """Keras' network is the same, but for images of Caffe's: blue, green, red, minus a mean."""
    if config.batch_norm:
        return None
    layers = [
        keras.conv(f"features/{index}", f"block{block}_conv{number}")
        for block, convolutions in enumerate(config.convolutions(), start=1)
        for number, (index, _) in enumerate(convolutions, start=1)
    ]
    layers[0] = dataclasses.replace(layers[0], op=keras.BGR)
    dense = [keras.Layer(f"classifier/{index}", name, "dense") for index, name in ((0, "fc1"), (3, "fc2"))]
    return keras.Network([*layers, *dense, keras.head("classifier/6")], pixels=(CAFFE.mean, CAFFE.std))


CONVENTIONS = {"torchvision": _torchvision, "timm": _timm, **keras.conventions(_keras)}
ORIGINALS = {
    **{library: {name: name for name in ARCHITECTURES} for library in ("torchvision", "timm")},
    "keras": {"vgg16": "VGG16", "vgg19": "VGG19"},
}
