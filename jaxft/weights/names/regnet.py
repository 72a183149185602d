"""RegNet's names: ours are timm's."""

from __future__ import annotations

from jaxft.models.regnet import ARCHITECTURES, Config
from jaxft.weights.names.names import Names, TransformersConfig


def _timm(config: Config) -> Names:
    return Names()


def _torchvision(config: Config) -> Names:
    parts = {"stem/conv": "stem.0", "stem/bn": "stem.1", "head/fc": "fc"}
    for stage, (depth, _, _) in enumerate(config.stages(), start=1):
        for block in range(1, depth + 1):
            ours, theirs = f"s{stage}/b{block}", f"trunk_output.block{stage}.block{stage}-{block - 1}"
            layers = {"conv1": "f.a", "conv2": "f.b", "conv3": "f.c", "downsample": "proj"}
            for own, foreign in layers.items():
                parts |= {f"{ours}/{own}/conv": f"{theirs}.{foreign}.0", f"{ours}/{own}/bn": f"{theirs}.{foreign}.1"}
            parts[f"{ours}/se"] = f"{theirs}.f.se"
    return Names(parts)


def _transformers(config: Config) -> Names:
    """Hugging Face's names, which count squeeze and excitation among the layers of a block."""
    parts = {
        "stem/conv": "regnet.embedder.embedder.convolution",
        "stem/bn": "regnet.embedder.embedder.normalization",
        "head/fc": "classifier.1",
    }
    for stage, (depth, _, _) in enumerate(config.stages(), start=1):
        for block in range(1, depth + 1):
            ours, theirs = f"s{stage}/b{block}", f"regnet.encoder.stages.{stage - 1}.layers.{block - 1}"
            last = 3 if config.squeeze else 2
            layers = {"conv1": "layer.0", "conv2": "layer.1", "conv3": f"layer.{last}", "downsample": "shortcut"}
            for own, foreign in layers.items():
                parts[f"{ours}/{own}/conv"] = f"{theirs}.{foreign}.convolution"
                parts[f"{ours}/{own}/bn"] = f"{theirs}.{foreign}.normalization"
            for own, number in (("fc1", 0), ("fc2", 2)):
                parts[f"{ours}/se/{own}"] = f"{theirs}.layer.2.attention.{number}"
    return Names(parts)


def transformers_config(config: Config) -> TransformersConfig:
    fields = {
        "depths": [depth for depth, _, _ in config.stages()],
        "hidden_sizes": [width for _, width, _ in config.stages()],
        "groups_width": config.group,
        "layer_type": "y" if config.squeeze else "x",
    }
    return TransformersConfig("regnet", "RegNetForImageClassification", fields)


CONVENTIONS = {"timm": _timm, "torchvision": _torchvision, "transformers": _transformers}
#: torchvision's networks by ours of the same widths, which it rounds in another way.
_TORCHVISION = {
    "regnetx_004_tv": "x_400mf",
    "regnetx_008": "x_800mf",
    "regnetx_016": "x_1_6gf",
    "regnetx_032": "x_3_2gf",
    "regnetx_080": "x_8gf",
    "regnetx_160": "x_16gf",
    "regnetx_320": "x_32gf",
    "regnety_004": "y_400mf",
    "regnety_008_tv": "y_800mf",
    "regnety_016": "y_1_6gf",
    "regnety_032": "y_3_2gf",
    "regnety_080_tv": "y_8gf",
    "regnety_160": "y_16gf",
    "regnety_320": "y_32gf",
    "regnety_1280": "y_128gf",
}
ORIGINALS = {
    "timm": {name: name for name in ARCHITECTURES},
    "torchvision": {name: f"regnet_{theirs}" for name, theirs in _TORCHVISION.items()},
}
