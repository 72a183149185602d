"""MNASNet's names: ours are timm's."""

from __future__ import annotations

from jaxft.models.mbconv import Config
from jaxft.models.mnasnet import ARCHITECTURES
from jaxft.weights.names import mbconv
from jaxft.weights.names.names import Names


def _torchvision(config: Config) -> Names:
    """All layers up to the pooling are numbered through, activations too; each stage after the first is one of them.

    A state dict needs the `_metadata` of `network.state_dict()` too, which no file but torch's own has.
    """
    last = len(config.stages) + 7
    parts = {"conv_stem": "layers.0", "bn1": "layers.1"}
    parts |= {"conv_head": f"layers.{last}", "bn2": f"layers.{last + 1}", "classifier": "classifier.1"}
    for number, stage in enumerate(config.stages):
        if number == 0:
            parts |= mbconv.layers("blocks/0/0", stage[0], [("layers.3", "layers.4"), ("layers.6", "layers.7")])
        else:
            own = f"layers.{number + 7}.{{block}}.layers"
            theirs = [(f"{own}.{index}", f"{own}.{index + 1}") for index in (0, 3, 6)]
            parts |= mbconv.layers(f"blocks/{number}/{{block}}", stage[0], theirs)
    return Names(parts)


CONVENTIONS = {"timm": mbconv.timm, "torchvision": _torchvision}
ORIGINALS = {
    "timm": {name: name for name in ARCHITECTURES if name.startswith("mnasnet_")},
    "torchvision": {name: name for name in ARCHITECTURES if not name.startswith("mnasnet_")},
}
