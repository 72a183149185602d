"""MLP-Mixer's names: ours are timm's."""

from __future__ import annotations

from jaxft.models.mixer import ARCHITECTURES, Config
from jaxft.weights.names.names import Names


def _timm(config: Config) -> Names:
    return Names()


CONVENTIONS = {"timm": _timm}
ORIGINALS = {"timm": {name: name for name in ARCHITECTURES}}
