"""Adapters: few new parameters beside a pretrained network's own, as functions of the two trees.

What they add stands under `params["adapters"]`, below the path of the module it belongs to. `with_adapter` gives the network
that has them, `jaxft.tuning` the mask that trains them (`train="lora+head"`), and everything else, steps, shardings,
checkpoints, reports, sees nothing but parameters.
"""

from jaxft.adapters.adapt import NAMES, adapted, can_merge, make_adapter, merge_adapter, with_adapter
from jaxft.adapters.bottleneck import Bottleneck
from jaxft.adapters.lora import Lora, merge, unmerge
from jaxft.adapters.prompt import Prompt
from jaxft.adapters.ssf import Ssf

__all__ = [
    "NAMES",
    "Bottleneck",
    "Lora",
    "Prompt",
    "Ssf",
    "adapted",
    "can_merge",
    "make_adapter",
    "merge",
    "merge_adapter",
    "unmerge",
    "with_adapter",
]
