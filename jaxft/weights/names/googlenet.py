"""GoogLeNet's names: ours are torchvision's."""

from __future__ import annotations

from jaxft.models.googlenet import AUXILIARY, Config
from jaxft.weights.names.names import Names
from jaxft.weights.rules import flatten_chw


def _torchvision(config: Config) -> Names:
    if config.aux:
        return Names(ops={f"{aux}/fc1/kernel": flatten_chw(128, 4, 4) for aux in AUXILIARY.values()})
    ignored = [f"{aux}.{rest}" for aux in AUXILIARY.values() for rest in ("{layer}.{leaf}", "{layer}.{part}.{leaf}")]
    return Names(ignored=tuple(ignored))


CONVENTIONS = {"torchvision": _torchvision}
ORIGINALS = {"torchvision": {"googlenet": "googlenet", "googlenet_aux": "googlenet"}}
ARGUMENTS = {
    "googlenet": {"aux_logits": False, "init_weights": False},
    "googlenet_aux": {"aux_logits": True, "init_weights": False},
}
