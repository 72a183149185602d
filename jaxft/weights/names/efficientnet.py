"""EfficientNet's names: ours are timm's."""

from __future__ import annotations

import functools

from jaxft.models.efficientnet import ARCHITECTURES, SCALES
from jaxft.models.mbconv import Config
from jaxft.preprocessing import Preprocessing
from jaxft.weights.names import keras, mbconv
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
            kind = ("efficientnet", "EfficientNetForImageClassification")
            return TransformersConfig(*kind, fields, momentum, functools.partial(_padding, config), multiple=2)
    return None


def _padding(config: Config, size: int) -> dict[str, list[int]]:
    """SAME padding depends on the map's side; there it is that of even ones, but for blocks that the config lists."""
    listed, side = [], -(-size // 2)
    for _, block, _, number in mbconv.blocks(config):
        if block.strides == 2:
            if side % 2:
                listed.append(number)
            side = -(-side // 2)
    return {"depthwise_padding": listed}


def keras_layers(config: Config, depthwise: str = "dwconv") -> list[keras.Layer]:
    """Keras' layers, those of EfficientNet-v2 too, where `depthwise` has another name."""
    layers = [keras.conv("conv_stem", "stem_conv"), keras.norm("bn1", "stem_bn")]
    for ours, block, stage, _ in mbconv.blocks(config):
        own = f"block{stage + 1}{chr(ord('a') + int(ours.rpartition('/')[2]))}"
        project = (f"{own}_project_conv", f"{own}_project_bn")
        expand, middle = (f"{own}_expand_conv", f"{own}_expand_bn"), (f"{own}_{depthwise}", f"{own}_bn")
        theirs = {"inverted": [expand, middle, project], "separable": [middle, project], "fused": [expand, project]}
        pairs = theirs.get(block.kind, [project])
        layers += mbconv.keras_block(ours, block, pairs, (f"{own}_se_reduce", f"{own}_se_expand"))
    return [*layers, keras.conv("conv_head", "top_conv"), keras.norm("bn2", "top_bn"), keras.head("classifier")]


def _keras(config: Config) -> keras.Network:
    """The first layers there normalise pixels, with weights. In the published files what is called a variance is a deviation,
    which Keras makes up for (tensorflow issue 49930); what is written is what `EfficientNetB0(weights=None)` takes."""
    images = Preprocessing()
    return keras.Network(keras_layers(config), normalized=(images.mean, images.std))


CONVENTIONS = {
    "timm": mbconv.timm,
    "torchvision": mbconv.padded(torchvision, same=False),
    "transformers": mbconv.padded(_transformers, same=True),
    **keras.conventions(mbconv.keras_of(_keras)),
}
_FULL = [name for name in ARCHITECTURES if not name.startswith(("efficientnet_lite", "keras_"))]
#: B0 to B4 are timm's in torchvision too, the others have another epsilon there and are networks of their own here.
ORIGINALS = {
    "timm": {name: name for name in _FULL if not name.startswith("tv_")},
    "torchvision": {
        **{f"efficientnet_b{number}": f"efficientnet_b{number}" for number in range(5)},
        **{name: name.removeprefix("tv_") for name in _FULL if name.startswith("tv_")},
    },
    "keras": {f"keras_efficientnet_b{number}": f"EfficientNetB{number}" for number in range(8)},
}
