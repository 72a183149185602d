"""MobileNet-v2 (Sandler et al., 2018), named as timm names it; torchvision's is the same network.

The authors' own weights, as transformers has them, are called `tf_`: padded as TensorFlow does, with an epsilon of 1e-3, and
statistics that keep 0.997 of their old value in training.
Keras' compute the same, but for the statistics in training, and are called `keras_`.
"""

from __future__ import annotations

from typing import Any

from jaxft.models import mbconv
from jaxft.models.architecture import Architecture
from jaxft.models.efficientnet import TF
from jaxft.models.layers import round_channels
from jaxft.models.mbconv import Config, Row

STAGES = (
    Row("separable", 1, 3, 1, 1, 16),
    Row("inverted", 2, 3, 2, 6, 24),
    Row("inverted", 3, 3, 2, 6, 32),
    Row("inverted", 4, 3, 2, 6, 64),
    Row("inverted", 3, 3, 1, 6, 96),
    Row("inverted", 3, 3, 2, 6, 160),
    Row("inverted", 1, 3, 1, 6, 320),
)
STEM, NECK = 32, 1280


def config(width: float, depth: float = 1.0, **others: Any) -> Config:
    """All convolutions are scaled by `width`, but the neck is never narrower than `NECK`.

    With another depth (timm's `d` variants) stem and neck are not scaled, and the first and the last stage not deepened.
    """
    deepened = depth != 1
    stem = STEM if deepened else round_channels(STEM * width)
    neck = NECK if deepened else max(NECK, round_channels(NECK * width))
    depths = (1.0, *[depth] * (len(STAGES) - 2), 1.0)
    return Config(mbconv.scaled([[row] for row in STAGES], stem, "relu6", width, depths), stem, neck, "relu6", **others)


def architecture(config: Config, size: int = 224, tf: bool = False) -> Architecture:
    """The authors' images (`tf`) go from -1 to 1, and are cropped by 32 pixels at any size."""
    pixels = mbconv.images(size, size + 32, "bilinear" if tf else "bicubic", half=tf)
    return mbconv.architecture("mobilenetv2", config, pixels)


_TIMM = {
    "035": (0.35, 1.0),
    "050": (0.5, 1.0),
    "075": (0.75, 1.0),
    "100": (1.0, 1.0),
    "110d": (1.1, 1.2),
    "120d": (1.2, 1.4),
    "140": (1.4, 1.0),
}
#: Width, and the size that transformers' weights are for.
_TF = {"035": (0.35, 96), "075": (0.75, 160), "100": (1.0, 224), "140": (1.4, 224)}
#: Keras' statistics; its weights are for several sizes.
KERAS: dict[str, Any] = {**TF, "momentum": 0.001, "unbiased": False}
_KERAS = {"035": 0.35, "050": 0.5, "075": 0.75, "100": 1.0, "130": 1.3, "140": 1.4}
ARCHITECTURES = {
    **{f"mobilenetv2_{name}": architecture(config(*factors)) for name, factors in _TIMM.items()},
    **{
        f"tf_mobilenetv2_{name}": architecture(config(width, **TF, momentum=0.003), size, tf=True)
        for name, (width, size) in _TF.items()
    },
    **{
        f"keras_mobilenetv2_{name}": architecture(config(width, **KERAS, dropout=0.0), tf=True)
        for name, width in _KERAS.items()
    },
}
