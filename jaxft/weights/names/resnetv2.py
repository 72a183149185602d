"""ResNet v2's names: ours are timm's."""

from __future__ import annotations

from jaxft.models.resnetv2 import ARCHITECTURES, Config
from jaxft.weights.names.names import Names
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


CONVENTIONS = {"timm": _timm, "transformers": _transformers}
ORIGINALS = {"timm": {name: name for name in ARCHITECTURES}}
