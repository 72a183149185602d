"""ResNet v2's names: ours are timm's."""

from __future__ import annotations

from jaxft.models.resnetv2 import ARCHITECTURES, Config
from jaxft.weights.names.names import Names, TransformersConfig
from jaxft.weights.rules import POINTWISE


def _timm(config: Config) -> Names:
    """timm, as the authors, writes the last layer as a convolution."""
    return Names(ops={"head/fc/kernel": POINTWISE})


def _transformers(config: Config) -> Names:
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


CONVENTIONS = {"timm": _timm, "transformers": _transformers}
ORIGINALS = {"timm": {name: name for name in ARCHITECTURES}}
