"""ResNet v2's names: ours are timm's."""

from __future__ import annotations

from jaxft.models.resnetv2 import ARCHITECTURES, Config
from jaxft.weights.names import keras
from jaxft.weights.names.names import Names, TransformersConfig
from jaxft.weights.rules import POINTWISE


def _timm(config: Config) -> Names | None:
    """timm, as the authors, writes the last layer as a convolution."""
    return None if config.keras else Names(ops={"head/fc/kernel": POINTWISE})


def _transformers(config: Config) -> Names | None:
    if config.keras:
        return None
    return Names(
        {
            "stem/conv": "bit.embedder.convolution",
            "stages/{s}/blocks/{b}": "bit.encoder.stages.{s}.layers.{b}",
            "norm": "bit.norm",
            "head/fc": "classifier.1",
        }
    )


def transformers_config(config: Config) -> TransformersConfig:
    fields = {"depths": list(config.depths), "hidden_sizes": list(config.widths), "embedding_size": config.widths[0] // 4}
    return TransformersConfig("bit", "BitForImageClassification", {**fields, "layer_type": "preactivation"})


def _keras(config: Config) -> keras.Network | None:
    """The two convolutions at the end of a stage's first block are counted shortcut first."""
    if not config.keras:
        return None
    layers = [keras.conv("stem/conv", "conv1_conv")]
    for stage, depth in enumerate(config.depths):
        for block in range(depth):
            ours, theirs = f"stages/{stage}/blocks/{block}", f"conv{stage + 2}_block{block + 1}"
            shortcut = [keras.conv(f"{ours}/downsample/conv", f"{theirs}_0_conv")] if block == 0 else []
            layers += [
                keras.norm(f"{ours}/norm1", f"{theirs}_preact_bn"),
                keras.conv(f"{ours}/conv1", f"{theirs}_1_conv"),
                keras.norm(f"{ours}/norm2", f"{theirs}_1_bn"),
                keras.conv(f"{ours}/conv2", f"{theirs}_2_conv"),
                keras.norm(f"{ours}/norm3", f"{theirs}_2_bn"),
                *shortcut,
                keras.conv(f"{ours}/conv3", f"{theirs}_3_conv"),
            ]
    return keras.Network([*layers, keras.norm("norm", "post_bn"), keras.head("head/fc")])


CONVENTIONS = {"timm": _timm, "transformers": _transformers, **keras.conventions(_keras)}
_KERAS = {name: f"ResNet{name.removeprefix('keras_resnet').upper()}" for name in ARCHITECTURES if name.startswith("keras_")}
ORIGINALS = {"timm": {name: name for name in ARCHITECTURES if name not in _KERAS}, "keras": _KERAS}
