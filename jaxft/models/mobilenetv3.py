"""MobileNet-v3 (Howard et al., 2019), named as timm names it.

The last convolution comes after the pooling. Four forms of the same network have weights: timm's own; the authors', which pad
as TensorFlow does, SAME, with an epsilon of 1e-3 (`tf_`); and torchvision's, with that epsilon and torch's padding
(`mobilenet_v3_*`). Keras' compute what the authors' do, but for the statistics in training: they are called `keras_`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxft.models import mbconv
from jaxft.models.architecture import Architecture
from jaxft.models.efficientnet import TF, TV
from jaxft.models.mbconv import Config, Row
from jaxft.models.mobilenetv2 import KERAS
from jaxft.preprocessing import Preprocessing

LARGE = (
    (Row("separable", 1, 3, 1, 1, 16, False, "relu"),),
    (Row("inverted", 1, 3, 2, 4, 24, False, "relu"), Row("inverted", 1, 3, 1, 3, 24, False, "relu")),
    (Row("inverted", 3, 5, 2, 3, 40, True, "relu"),),
    (Row("inverted", 1, 3, 2, 6, 80), Row("inverted", 1, 3, 1, 2.5, 80), Row("inverted", 2, 3, 1, 2.3, 80)),
    (Row("inverted", 2, 3, 1, 6, 112, True),),
    (Row("inverted", 3, 5, 2, 6, 160, True),),
    (Row("plain", 1, 1, 1, 1, 960),),
)
SMALL = (
    (Row("separable", 1, 3, 2, 1, 16, True, "relu"),),
    (Row("inverted", 1, 3, 2, 4.5, 24, False, "relu"), Row("inverted", 1, 3, 1, 3.67, 24, False, "relu")),
    (Row("inverted", 1, 5, 2, 4, 40, True), Row("inverted", 2, 5, 1, 6, 40, True)),
    (Row("inverted", 2, 5, 1, 3, 48, True),),
    (Row("inverted", 3, 5, 2, 6, 96, True),),
    (Row("plain", 1, 1, 1, 1, 576),),
)
STEM = 16


def config(stages: Sequence[Sequence[Row]], neck: int, width: float = 1.0, minimal: bool = False, **others: Any) -> Config:
    """A member; neither stem nor neck are scaled.

    Args:
      stages: the rows of each stage.
      neck: channels of the convolution after the pooling.
      width: factor of all other channels.
      minimal: only what every accelerator does well: 3x3 kernels, ReLU, no squeeze-and-excitation.
      **others: of `Config`.
    """
    activation = "relu" if minimal else "hard_swish"
    if minimal:
        stages = [[row._replace(kernel=min(row.kernel, 3), squeeze=False) for row in rows] for rows in stages]
    blocks = mbconv.scaled(stages, STEM, activation, width, squeeze_inner=True)
    return Config(blocks, STEM, neck, activation, pooled_neck=True, squeeze=("relu", "hard_sigmoid"), **others)


def architecture(config: Config, preprocessing: Preprocessing | None = None) -> Architecture:
    return mbconv.architecture("mobilenetv3", config, preprocessing or mbconv.images(224, 256))


def large(width: float = 1.0, **others: Any) -> Config:
    return config(LARGE, 1280, width, **others)


def small(width: float = 1.0, **others: Any) -> Config:
    return config(SMALL, 1024, width, **others)


_BILINEAR = mbconv.images(224, 256, "bilinear")
_HALF = mbconv.images(224, 256, "bilinear", half=True)
ARCHITECTURES = {
    "mobilenetv3_large_075": architecture(large(0.75), _BILINEAR),
    "mobilenetv3_large_100": architecture(large()),
    "mobilenetv3_small_050": architecture(small(0.5)),
    "mobilenetv3_small_075": architecture(small(0.75)),
    "mobilenetv3_small_100": architecture(small()),
    "tf_mobilenetv3_large_075": architecture(large(0.75, **TF), _HALF),
    "tf_mobilenetv3_large_100": architecture(large(**TF), _HALF),
    "tf_mobilenetv3_large_minimal_100": architecture(large(minimal=True, **TF), _HALF),
    "tf_mobilenetv3_small_075": architecture(small(0.75, **TF), _HALF),
    "tf_mobilenetv3_small_100": architecture(small(**TF), _HALF),
    "tf_mobilenetv3_small_minimal_100": architecture(small(minimal=True, **TF), _HALF),
    "mobilenet_v3_large": architecture(large(**TV), mbconv.images(224, 232, "bilinear")),
    "mobilenet_v3_small": architecture(small(**TV), _BILINEAR),
    **{
        f"keras_mobilenetv3_{size}_{name}": architecture(make(width, minimal=minimal, **KERAS), _HALF)
        for size, make in (("large", large), ("small", small))
        for name, width, minimal in (("075", 0.75, False), ("100", 1.0, False), ("minimal_100", 1.0, True))
    },
}
