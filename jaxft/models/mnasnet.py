"""MNASNet (Tan et al., 2019), the B1 that torchvision and timm have, named as timm names it."""

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


def config(width: float) -> Config:
    """All convolutions are scaled but the neck."""
    stem = round_channels(32 * width)
    blocks = mbconv.scaled([[row] for row in STAGES], stem, "relu", width)
    return Config(blocks, stem, 1280, "relu")


def architecture(config: Config, resize: int = 256, interpolation: str = "bicubic") -> Architecture:
    return mbconv.architecture("mnasnet", config, mbconv.images(224, resize, interpolation))


#: Those trained in torchvision alone are cropped as it crops them.
ARCHITECTURES = {
    "mnasnet_050": architecture(config(0.5), 256, "bilinear"),
    "mnasnet_075": architecture(config(0.75), 232, "bilinear"),
    "mnasnet_100": architecture(config(1.0)),
    "mnasnet_130": architecture(config(1.3), 232, "bilinear"),
}
