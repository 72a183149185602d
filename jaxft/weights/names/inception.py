"""Inception-v3's names: ours are torchvision's, which timm shares."""

from __future__ import annotations

from jaxft.models.inception import Config
from jaxft.weights.names.names import Names


def _same(config: Config) -> Names:
    return Names() if config.aux else Names(ignored=("AuxLogits.{layer}.{leaf}", "AuxLogits.{layer}.{part}.{leaf}"))


CONVENTIONS = {"torchvision": _same, "timm": _same}
ORIGINALS = {
    "torchvision": {"inception_v3": "inception_v3", "inception_v3_aux": "inception_v3"},
    "timm": {"inception_v3": "inception_v3"},
}
ARGUMENTS = {
    "inception_v3": {"aux_logits": False, "init_weights": False},
    "inception_v3_aux": {"aux_logits": True, "init_weights": False},
}
