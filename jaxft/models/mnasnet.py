"""MNASNet (Tan et al., 2019), the B1 that torchvision and timm have, named as timm names it.

torchvision's BatchNorm has TensorFlow's momentum, timm's torch's own: with the same weights they are two networks in training.
"""

from __future__ import annotations

from jaxft.models import mbconv
from jaxft.models.architecture import Architecture
from jaxft.models.layers import round_channels
from jaxft.models.mbconv import Config, Row

STAGES = (
    Row("separable", 1, 3, 1, 1, 16),
    Row("inverted", 3, 3, 2, 3, 24),
    Row("inverted", 3, 5, 2, 3, 40),
    Row("inverted", 3, 5, 2, 6, 80),
    Row("inverted", 2, 3, 1, 6, 96),
    Row("inverted", 4, 5, 2, 6, 192),
    Row("inverted", 1, 3, 1, 6, 320),
)


def config(width: float, momentum: float = 0.1) -> Config:
    """All convolutions are scaled but the neck. `momentum`: see `Config`."""
    stem = round_channels(32 * width)
    blocks = mbconv.scaled([[row] for row in STAGES], stem, "relu", width)
    return Config(blocks, stem, 1280, "relu", momentum=momentum)


def architecture(config: Config, resize: int = 256, interpolation: str = "bicubic") -> Architecture:
    return mbconv.architecture("mnasnet", config, mbconv.images(224, resize, interpolation))


TORCHVISION = 1 - 0.9997  # the momentum there
ARCHITECTURES = {
    "mnasnet_050": architecture(config(0.5)),
    "mnasnet_075": architecture(config(0.75)),
    "mnasnet_100": architecture(config(1.0)),
    "mnasnet0_5": architecture(config(0.5, TORCHVISION), 256, "bilinear"),
    "mnasnet0_75": architecture(config(0.75, TORCHVISION), 232, "bilinear"),
    "mnasnet1_0": architecture(config(1.0, TORCHVISION), 256, "bilinear"),
    "mnasnet1_3": architecture(config(1.3, TORCHVISION), 232, "bilinear"),
}
