"""ResNet's names: ours are torchvision's, which timm shares."""

from __future__ import annotations

from jaxft.models.resnet import ARCHITECTURES, WIDTHS, Config
from jaxft.weights.names import keras
from jaxft.weights.names.names import Names, TransformersConfig


def _timm(config: Config) -> Names | None:
    return None if config.bias else Names()


def _torchvision(config: Config) -> Names | None:
    """It has the networks of one stem, plain shortcuts and no squeeze and excitation."""
    own = config.stem or config.pooled_shortcut or config.squeeze or config.early_stride
    return None if own else Names()


def _transformers(config: Config) -> Names | None:
    """Hugging Face's names. It has the plain networks: one group of width 64, a 7x7 stem, no squeeze and excitation."""
    if config != Config(config.depths, config.bottleneck, early_stride=config.early_stride):
        return None
    parts = {"conv1": "resnet.embedder.embedder.convolution", "bn1": "resnet.embedder.embedder.normalization"}
    for stage in range(4):
        ours, theirs = f"layer{stage + 1}/{{b}}", f"resnet.encoder.stages.{stage}.layers.{{b}}"
        for layer in range(3 if config.bottleneck else 2):
            parts[f"{ours}/conv{layer + 1}"] = f"{theirs}.layer.{layer}.convolution"
            parts[f"{ours}/bn{layer + 1}"] = f"{theirs}.layer.{layer}.normalization"
        parts[f"{ours}/downsample/0"] = f"{theirs}.shortcut.convolution"
        parts[f"{ours}/downsample/1"] = f"{theirs}.shortcut.normalization"
    return Names({**parts, "fc": "classifier.1"})


def transformers_config(config: Config) -> TransformersConfig:
    widths = [width * 4 if config.bottleneck else width for width in WIDTHS]
    fields = {"depths": list(config.depths), "hidden_sizes": widths, "downsample_in_bottleneck": config.early_stride}
    layer = "bottleneck" if config.bottleneck else "basic"
    return TransformersConfig("resnet", "ResNetForImageClassification", {**fields, "layer_type": layer})


def _keras(config: Config) -> keras.Network | None:
    """The two convolutions at the end of a block are counted shortcut first."""
    if not config.bias:
        return None
    layers = [keras.conv("conv1", "conv1_conv", op=keras.BGR), keras.norm("bn1", "conv1_bn")]
    for stage, depth in enumerate(config.depths, start=1):
        for block in range(depth):
            ours, theirs = f"layer{stage}/{block}", f"conv{stage + 1}_block{block + 1}"
            parts = [(f"{ours}/conv{number}", f"{ours}/bn{number}", f"{theirs}_{number}") for number in (1, 2, 3)]
            if block == 0:
                parts.insert(2, (f"{ours}/downsample/0", f"{ours}/downsample/1", f"{theirs}_0"))
            for convolution, norm, name in parts:
                layers += [keras.conv(convolution, f"{name}_conv"), keras.norm(norm, f"{name}_bn")]
    return keras.Network([*layers, keras.head("fc")])


CONVENTIONS = {
    "torchvision": _torchvision,
    "timm": _timm,
    "transformers": _transformers,
    **keras.conventions(_keras),
}
_TORCHVISION = (
    *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
)
ORIGINALS = {
    "torchvision": {name: name for name in _TORCHVISION},
    "timm": {name: name for name in ARCHITECTURES if not name.startswith("keras_")},
    "keras": {f"keras_resnet{depth}": f"ResNet{depth}" for depth in (50, 101, 152)},
}
