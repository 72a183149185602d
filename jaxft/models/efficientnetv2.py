"""EfficientNet-v2 (Tan & Le, 2021), named as timm names it.

Its first stages are full convolutions: fused blocks. The authors' own pad as TensorFlow does, SAME, with an epsilon of 1e-3,
and are called `tf_`; torchvision's have that epsilon and torch's padding (`efficientnet_v2_*`); those called `rw` are timm's
own. Of these S and M, older than the authors', differ in the first and the last stage and in the neck. Keras' compute what
`tf_` do, but for statistics in training, and are called `keras_`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxft.models import mbconv
from jaxft.models.architecture import Architecture
from jaxft.models.efficientnet import TF
from jaxft.models.layers import round_channels
from jaxft.models.mbconv import Config, Row

BASE = (
    Row("plain", 1, 3, 1, 1, 16),
    Row("fused", 2, 3, 2, 4, 32),
    Row("fused", 2, 3, 2, 4, 48),
    Row("inverted", 3, 3, 2, 4, 96, True),
    Row("inverted", 5, 3, 1, 6, 112, True),
    Row("inverted", 8, 3, 2, 6, 192, True),
)
SMALL = (
    Row("plain", 2, 3, 1, 1, 24),
    Row("fused", 4, 3, 2, 4, 48),
    Row("fused", 4, 3, 2, 4, 64),
    Row("inverted", 6, 3, 2, 4, 128, True),
    Row("inverted", 9, 3, 1, 6, 160, True),
    Row("inverted", 15, 3, 2, 6, 256, True),
)
RW = (Row("fused", 2, 3, 1, 1, 24), *SMALL[1:-1], Row("inverted", 15, 3, 2, 6, 272, True))
MEDIUM = (
    Row("plain", 3, 3, 1, 1, 24),
    Row("fused", 5, 3, 2, 4, 48),
    Row("fused", 5, 3, 2, 4, 80),
    Row("inverted", 7, 3, 2, 4, 160, True),
    Row("inverted", 14, 3, 1, 6, 176, True),
    Row("inverted", 18, 3, 2, 6, 304, True),
    Row("inverted", 5, 3, 1, 6, 512, True),
)
LARGE = (
    Row("plain", 4, 3, 1, 1, 32),
    Row("fused", 7, 3, 2, 4, 64),
    Row("fused", 7, 3, 2, 4, 96),
    Row("inverted", 10, 3, 2, 4, 192, True),
    Row("inverted", 19, 3, 1, 6, 224, True),
    Row("inverted", 25, 3, 2, 6, 384, True),
    Row("inverted", 7, 3, 1, 6, 640, True),
)


def config(
    rows: Sequence[Row],
    stem: int,
    width: float = 1.0,
    depth: float | Sequence[float] = 1.0,
    neck: int = 1280,
    least: float = 0.9,
    **others: Any,
) -> Config:
    """A member: `stem` and `neck` are scaled as the rows are; for `least` see `round_channels`."""
    stem, neck = (round_channels(channels * width, least=least) for channels in (stem, neck))
    stages = mbconv.scaled([[row] for row in rows], stem, "silu", width, depth, least=least)
    return Config(stages, stem, neck, "silu", **others)


#: TensorFlow's padding and epsilon, and a momentum of its own; Keras' statistics.
KERAS: dict[str, Any] = {**TF, "momentum": 0.1, "unbiased": False}


def _member(own: Config, size: int, resize: int, interpolation: str = "bicubic", half: bool = False) -> Architecture:
    return mbconv.architecture("efficientnetv2", own, mbconv.images(size, resize, interpolation, half))


#: The factors of `BASE`: width, depth, dropout; and its images: size, resized to, whether pixels go from -1 to 1.
_BASES = {
    0: (1.0, 1.0, 0.2, 192, 219, False),
    1: (1.0, 1.1, 0.2, 192, 217, False),
    2: (1.1, 1.2, 0.3, 208, 233, False),
    3: (1.2, 1.4, 0.3, 240, 266, True),
}
#: Keras' images: size, mean and deviation in 0..1; those of S, M and L are divided by 128.
_KERAS = {
    **dict(zip(("b0", "b1", "b2", "b3"), (224, 240, 260, 300), strict=True)),
    "s": 384,
    "m": 480,
    "l": 480,
}


def _keras(member: str) -> Architecture:
    size = _KERAS[member]
    pixels = mbconv.images(size, round(size / 0.875), "bilinear")
    if member.startswith("b"):
        width, depth, dropout, *_ = _BASES[int(member[1])]
        return mbconv.architecture(
            "efficientnetv2", config(BASE, 32, width, depth, least=0.0, dropout=dropout, **KERAS), pixels
        )
    rows, stem, dropout = {"s": (SMALL, 24, 0.2), "m": (MEDIUM, 24, 0.3), "l": (LARGE, 32, 0.4)}[member]
    pixels = dataclasses.replace(pixels, mean=(128 / 255,) * 3, std=(128 / 255,) * 3)
    return mbconv.architecture("efficientnetv2", config(rows, stem, dropout=dropout, **KERAS), pixels)


ARCHITECTURES = {
    **{
        f"tf_efficientnetv2_b{number}": _member(
            config(BASE, 32, width, depth, least=0.0, dropout=dropout, **TF), size, resize, half=half
        )
        for number, (width, depth, dropout, size, resize, half) in _BASES.items()
    },
    "tf_efficientnetv2_s": _member(config(SMALL, 24, dropout=0.2, **TF), 300, 300, half=True),
    "tf_efficientnetv2_m": _member(config(MEDIUM, 24, dropout=0.3, **TF), 384, 384, half=True),
    "tf_efficientnetv2_l": _member(config(LARGE, 32, dropout=0.4, **TF), 384, 384, half=True),
    "efficientnet_v2_s": _member(config(SMALL, 24, dropout=0.2, epsilon=1e-3), 384, 384, "bilinear"),
    "efficientnet_v2_m": _member(config(MEDIUM, 24, dropout=0.3, epsilon=1e-3), 480, 480, "bilinear"),
    "efficientnet_v2_l": _member(config(LARGE, 32, dropout=0.4, epsilon=1e-3), 480, 480, half=True),
    "efficientnetv2_rw_t": _member(config(SMALL, 24, 0.8, 0.9, dropout=0.0), 224, 224),
    "efficientnetv2_rw_s": _member(config(RW, 24, neck=1792, dropout=0.0), 288, 288),
    "efficientnetv2_rw_m": _member(config(RW, 24, 1.2, (1.2,) * 4 + (1.6,) * 2, 1792, dropout=0.0), 320, 320),
    **{f"keras_efficientnetv2_{member}": _keras(member) for member in _KERAS},
}
