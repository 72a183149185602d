"""ConvNeXt's names: ours are timm's."""

from __future__ import annotations

from jaxft.models.convnext import ARCHITECTURES, Config
from jaxft.weights.names import keras
from jaxft.weights.names.names import Names, TransformersConfig
from jaxft.weights.rules import POINTWISE, Op

#: A vector that is laid out for maps [C, H, W].
_CHANNELS_FIRST = Op("channels_first", lambda x: x.reshape(x.shape[0]), lambda x: x[:, None, None])
#: A vector that is laid out for maps [B, H, W, C].
_CHANNELS_LAST = Op("channels_last", lambda x: x.reshape(x.shape[-1]), lambda x: x[None, None, None, :])

_BLOCK = "stages/{s}/blocks/{b}"


def _timm(config: Config) -> Names:
    kernels = f"{_BLOCK}/mlp/{{layer}}/kernel"
    return Names(ops={kernels: POINTWISE} if config.conv_mlp else {})


def _torchvision(config: Config) -> Names | None:
    """torchvision's names: stages and what stands between them are numbered through. It has the plain first version only."""
    if config.v2 or config.stem != "patch":
        return None
    parts = {"stem": "features.0", "head/norm": "classifier.0", "head/fc": "classifier.2"}
    for stage in range(4):
        layer = f"features.{2 * stage + 1}.{{b}}"
        parts |= {
            f"stages/{stage}/downsample": f"features.{2 * stage}",
            f"stages/{stage}/blocks/{{b}}/conv_dw": f"{layer}.block.0",
            f"stages/{stage}/blocks/{{b}}/norm": f"{layer}.block.2",
            f"stages/{stage}/blocks/{{b}}/mlp/fc1": f"{layer}.block.3",
            f"stages/{stage}/blocks/{{b}}/mlp/fc2": f"{layer}.block.5",
            f"stages/{stage}/blocks/{{b}}/gamma": f"{layer}.layer_scale",
        }
    return Names(parts, ops={f"{_BLOCK}/gamma": _CHANNELS_FIRST})


def _transformers(config: Config) -> Names | None:
    """Hugging Face's names, of networks with the plain stem. Its last LayerNorm adds 1e-12 to the variance, not the 1e-6 its
    weights were trained with."""
    if config.stem != "patch":
        return None
    top = "convnextv2" if config.v2 else "convnext"
    stage = f"{top}.encoder.stages.{{s}}"
    parts = {
        "stem/0": f"{top}.embeddings.patch_embeddings",
        "stem/1": f"{top}.embeddings.layernorm",
        "stages/{s}/downsample": f"{stage}.downsampling_layer",
        f"{_BLOCK}/conv_dw": f"{stage}.layers.{{b}}.dwconv",
        f"{_BLOCK}/norm": f"{stage}.layers.{{b}}.layernorm",
        f"{_BLOCK}/mlp/fc1": f"{stage}.layers.{{b}}.pwconv1",
        f"{_BLOCK}/mlp/grn": f"{stage}.layers.{{b}}.grn",
        f"{_BLOCK}/mlp/fc2": f"{stage}.layers.{{b}}.pwconv2",
        f"{_BLOCK}/gamma": f"{stage}.layers.{{b}}.layer_scale_parameter",
        "head/norm": f"{top}.layernorm",
        "head/fc": "classifier",
    }
    return Names(parts, ops={f"{_BLOCK}/mlp/grn/{{leaf}}": _CHANNELS_LAST})


def transformers_config(config: Config) -> TransformersConfig:
    """The epsilon is that of the last LayerNorm alone, and 1e-12 in the files."""
    kind = "ConvNextV2" if config.v2 else "ConvNext"
    fields = {"depths": list(config.depths), "hidden_sizes": list(config.widths)}
    return TransformersConfig(kind.lower(), f"{kind}ForImageClassification", fields, {"layer_norm_eps": 1e-6})


def _keras(config: Config) -> keras.Network | None:
    """Keras' names without that of the network before them. Without its head, the network there ends in a LayerNorm too."""
    if config.v2 or config.stem != "patch":
        return None
    layers = []
    for stage, depth in enumerate(config.depths):
        ours = f"stages/{stage}/downsample/{{}}" if stage else "stem/{}"
        parts = (
            [("downsampling_layernorm_{}", 0), ("downsampling_conv_{}", 1)]
            if stage
            else [("stem_conv", 0), ("stem_layernorm", 1)]
        )
        inside = f"sequential_{stage}" if stage else "sequential"
        for name, number in parts:
            kind = "conv2d" if "conv" in name else "layer_normalization"
            layers.append(keras.Layer(ours.format(number), name.format(stage - 1), kind, inside=inside))
        for block in range(depth):
            ours, theirs = f"stages/{stage}/blocks/{block}", f"stage_{stage}_block_{block}"
            layers += [
                keras.conv(f"{ours}/conv_dw", f"{theirs}_depthwise_conv"),
                keras.Layer(f"{ours}/norm", f"{theirs}_layernorm", "layer_normalization"),
                keras.Layer(f"{ours}/mlp/fc1", f"{theirs}_pointwise_conv_1", "dense"),
                keras.Layer(f"{ours}/mlp/fc2", f"{theirs}_pointwise_conv_2", "dense"),
                keras.Layer(ours, f"{theirs}_layer_scale", "layer_scale"),
            ]
    norm = keras.Layer("head/norm", "head_layernorm", "layer_normalization", former=("layer_normalization",))
    return keras.Network([*layers, norm, keras.head("head/fc", "head_dense")])


CONVENTIONS = {
    "timm": _timm,
    "torchvision": _torchvision,
    "transformers": _transformers,
    **keras.conventions(_keras),
}
ORIGINALS = {
    "timm": {name: name for name in ARCHITECTURES},
    "torchvision": {name: name for name in ("convnext_tiny", "convnext_small", "convnext_base", "convnext_large")},
    "keras": {f"convnext_{size.lower()}": f"ConvNeXt{size}" for size in ("Tiny", "Small", "Base", "Large", "XLarge")},
}
