"""EfficientNet's names: ours are timm's."""

from __future__ import annotations

from jaxft.models.efficientnet import ARCHITECTURES, SCALES
from jaxft.models.mbconv import Config
from jaxft.weights.names import mbconv
from jaxft.weights.names.names import Names, TransformersConfig


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


def transformers_config(config: Config) -> TransformersConfig | None:
    """B0 to B7. The momentum is TensorFlow's in the files, the weight of the old value, which torch takes for the new one's."""
    for number in range(8):
        if config == ARCHITECTURES[f"tf_efficientnet_b{number}"].config:
            width, depth, _ = SCALES[number]
            fields = {"width_coefficient": width, "depth_coefficient": depth, "hidden_dim": config.neck}
            momentum = {"batch_norm_momentum": config.momentum}
            return TransformersConfig("efficientnet", "EfficientNetForImageClassification", fields, momentum)
    return None


CONVENTIONS = {
    "timm": mbconv.timm,
    "torchvision": mbconv.padded(torchvision, same=False),
    "transformers": mbconv.padded(_transformers, same=True),
}
_FULL = [name for name in ARCHITECTURES if not name.startswith("efficientnet_lite")]
#: B0 to B4 are timm's in torchvision too, the others have another epsilon there and are networks of their own here.
ORIGINALS = {
    "timm": {name: name for name in _FULL if not name.startswith("tv_")},
    "torchvision": {
        **{f"efficientnet_b{number}": f"efficientnet_b{number}" for number in range(5)},
        **{name: name.removeprefix("tv_") for name in _FULL if name.startswith("tv_")},
    },
}
