"""AlexNet's names: ours are torchvision's."""

from __future__ import annotations

from jaxft.models.alexnet import ARCHITECTURES, Config
from jaxft.weights.names.names import Names
from jaxft.weights.rules import flatten_chw


def _torchvision(config: Config) -> Names:
    return Names(ops={"classifier/1/kernel": flatten_chw(config.widths[-1], 6, 6)})


CONVENTIONS = {"torchvision": _torchvision}
ORIGINALS = {"torchvision": {name: name for name in ARCHITECTURES}}
