"""DenseNet's names: ours are torchvision's, which timm shares."""

from __future__ import annotations

from jaxft.models.densenet import ARCHITECTURES, Config
from jaxft.weights.names.names import Names


def _same(config: Config) -> Names:
    """torchvision's published files have former names of what is in a dense layer, `norm.1` and its like, which it renames."""
    also = {
        f"features/{{block}}/{{layer}}/{part}{number}": f"features.{{block}}.{{layer}}.{part}.{number}"
        for part in ("norm", "conv")
        for number in (1, 2)
    }
    return Names(also=also)


CONVENTIONS = {"torchvision": _same, "timm": _same}
ORIGINALS = {library: {name: name for name in ARCHITECTURES} for library in ("torchvision", "timm")}
