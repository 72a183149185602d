"""EfficientNet (Tan & Le, 2019) and its Lite variant (the TPU authors'), named as timm names them.

Those born in TensorFlow pad as it does, SAME, with an epsilon of 1e-3: Lite, and all that are called `tf_`. Those trained in
PyTorch pad as torch does. torchvision's B0 to B4 are the same networks as timm's; its B5 to B7 have TensorFlow's epsilon with
torch's padding, and are called `tv_`. Keras' compute what `tf_` do, but for statistics in training, and are called `keras_`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxft.models import mbconv
from jaxft.models.architecture import Architecture
from jaxft.models.layers import round_channels
from jaxft.models.mbconv import Config, Row
from jaxft.preprocessing import Preprocessing

#: (kind, blocks, kernel, stride, expansion, output channels) of each stage at width and depth 1.
STAGES = (
    Row("separable", 1, 3, 1, 1, 16),
    Row("inverted", 2, 3, 2, 6, 24),
    Row("inverted", 2, 5, 2, 6, 40),
    Row("inverted", 3, 3, 2, 6, 80),
    Row("inverted", 3, 5, 1, 6, 112),
    Row("inverted", 4, 5, 2, 6, 192),
    Row("inverted", 1, 3, 1, 6, 320),
)
#: The stem's and the neck's channels.
STEM, NECK = 32, 1280
#: TensorFlow's padding and epsilon.
TF: dict[str, Any] = {"same": True, "epsilon": 1e-3}
#: Keras': the same with its own BatchNorm.
KERAS: dict[str, Any] = {**TF, "momentum": 0.01, "unbiased": False}
#: The same epsilon with torch's padding; the momentum is torchvision's.
TV: dict[str, Any] = {"epsilon": 1e-3, "momentum": 0.01}


def config(width: float, depth: float, **others: Any) -> Config:
    """B0 to B8: all convolutions are scaled, and every block has squeeze-and-excitation."""
    stem, neck = round_channels(STEM * width), round_channels(NECK * width)
    rows = [[row._replace(squeeze=True)] for row in STAGES]
    return Config(mbconv.scaled(rows, stem, "silu", width, depth), stem, neck, "silu", **others)


def lite(width: float, depth: float) -> Config:
    """ReLU6 and no squeeze-and-excitation; neither stem nor neck are scaled, and the first and the last stage not deepened."""
    depths = (1.0, *[depth] * (len(STAGES) - 2), 1.0)
    return Config(mbconv.scaled([[row] for row in STAGES], STEM, "relu6", width, depths), STEM, NECK, "relu6", **TF)


def _lite_images(size: int) -> Preprocessing:
    """The authors' centre crop, and pixels (x - 127) / 128."""
    mean, std = (127 / 255,) * 3, (128 / 255,) * 3
    return Preprocessing(size, round(size / 0.875), "bicubic", mean, std)


#: Width, depth, dropout.
SCALES = {
    0: (1.0, 1.0, 0.2),
    1: (1.0, 1.1, 0.2),
    2: (1.1, 1.2, 0.3),
    3: (1.2, 1.4, 0.3),
    4: (1.4, 1.8, 0.4),
    5: (1.6, 2.2, 0.4),
    6: (1.8, 2.6, 0.5),
    7: (2.0, 3.1, 0.5),
    8: (2.2, 3.6, 0.5),
}
#: Of each library's first weights: input size, what an image is resized to before the crop, whether pixels go from -1 to 1.
_TIMM = {
    0: (224, 256, False),
    1: (240, 266, True),
    2: (256, 292, False),
    3: (288, 329, False),
    4: (320, 365, False),
    5: (448, 448, False),
}
_TF = {
    0: (224, 256, False),
    1: (240, 272, False),
    2: (260, 292, False),
    3: (300, 331, False),
    4: (380, 412, False),
    5: (456, 488, False),
    6: (528, 560, False),
    7: (600, 632, False),
    8: (672, 704, True),
}
_KERAS = {number: (size, round(size / 0.875), False) for number, size in enumerate((224, 240, 260, 300, 380, 456, 528, 600))}
_TV = {5: (456, 456, False), 6: (528, 528, False), 7: (600, 600, False)}


def _members(prefix: str, sizes: Mapping[int, tuple[int, int, bool]], form: Mapping[str, Any]) -> dict[str, Architecture]:
    found = {}
    for number, (size, resize, half) in sizes.items():
        width, depth, dropout = SCALES[number]
        own, pixels = config(width, depth, dropout=dropout, **form), mbconv.images(size, resize, half=half)
        found[f"{prefix}efficientnet_b{number}"] = mbconv.architecture("efficientnet", own, pixels)
    return found


ARCHITECTURES = {
    **{
        f"efficientnet_lite{number}": mbconv.architecture("efficientnet_lite", lite(width, depth), _lite_images(size))
        for number, width, depth, size in ((0, 1.0, 1.0, 224), (1, 1.0, 1.1, 240), (2, 1.1, 1.2, 260))
    },
    **_members("", _TIMM, {}),
    **_members("tf_", _TF, TF),
    **_members("tv_", _TV, TV),
    **_members("keras_", _KERAS, KERAS),
}
