"""MobileNet-v2's names: ours are timm's."""

from __future__ import annotations

from jaxft.models.mbconv import LAYERS, Config
from jaxft.models.mobilenetv2 import ARCHITECTURES
from jaxft.weights.names import keras, mbconv
from jaxft.weights.names.names import Names, TransformersConfig


def _torchvision(config: Config) -> Names:
    """Blocks are numbered through; the last convolution of one and its normalisation are no pair."""
    last = sum(len(stage) for stage in config.stages) + 1
    parts = {"conv_stem": "features.0.0", "bn1": "features.0.1"}
    parts |= {"conv_head": f"features.{last}.0", "bn2": f"features.{last}.1", "classifier": "classifier.1"}
    for ours, block, _, number in mbconv.blocks(config):
        own, end = f"features.{number + 1}.conv", len(LAYERS[block.kind]) - 1
        theirs = [(f"{own}.{index}.0", f"{own}.{index}.1") for index in range(end)]
        parts |= mbconv.layers(ours, block, [*theirs, (f"{own}.{end}", f"{own}.{end + 1}")])
    return Names(parts)


def _transformers(config: Config) -> Names:
    """The stem there is ours and the first block; the others are numbered through."""

    def pair(name: str) -> tuple[str, str]:
        return f"mobilenet_v2.{name}.convolution", f"mobilenet_v2.{name}.normalization"

    parts = {}
    for (convolution, norm), name in {("conv_stem", "bn1"): "conv_stem.first_conv", ("conv_head", "bn2"): "conv_1x1"}.items():
        parts[convolution], parts[norm] = pair(name)
    for ours, block, _, number in mbconv.blocks(config):
        own = f"layer.{number - 1}" if number else "conv_stem"
        names = ("expand_1x1", "conv_3x3", "reduce_1x1")[-len(LAYERS[block.kind]) :]
        parts |= mbconv.layers(ours, block, [pair(f"{own}.{name}") for name in names])
    return Names(parts)


def transformers_config(config: Config) -> TransformersConfig | None:
    """Width is told by a factor there, which our networks' names have in hundredths."""
    for name, own in ARCHITECTURES.items():
        if name.startswith("tf_") and own.config == config:
            fields = {"depth_multiplier": int(name.rpartition("_")[2]) / 100}
            return TransformersConfig("mobilenet_v2", "MobileNetV2ForImageClassification", fields)
    return None


def _keras(config: Config) -> keras.Network:
    layers = [keras.conv("conv_stem", "Conv1"), keras.norm("bn1", "bn_Conv1")]
    for ours, block, _, number in mbconv.blocks(config):
        own = f"block_{number}" if number else "expanded_conv"
        parts = ("expand", "depthwise", "project")[-len(LAYERS[block.kind]) :]
        layers += mbconv.keras_block(ours, block, [(f"{own}_{part}", f"{own}_{part}_BN") for part in parts], ("", ""))
    top = [keras.conv("conv_head", "Conv_1"), keras.norm("bn2", "Conv_1_bn")]
    return keras.Network([*layers, *top, keras.head("classifier", former=["Logits"])])


CONVENTIONS = {
    "timm": mbconv.timm,
    "torchvision": mbconv.padded(_torchvision, same=False),
    "transformers": mbconv.padded(_transformers, same=True),
    **keras.conventions(mbconv.keras_of(_keras)),
}
ORIGINALS = {
    "timm": {name: name for name in ARCHITECTURES if not name.startswith(("tf_", "keras_"))},
    "torchvision": {"mobilenetv2_100": "mobilenet_v2"},
    "keras": {name: "MobileNetV2" for name in ARCHITECTURES if name.startswith("keras_")},
}
ARGUMENTS = {name: {"alpha": int(name[-3:]) / 100} for name in ORIGINALS["keras"]}
