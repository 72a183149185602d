"""What is trained: a freeze spec becomes one mask; parameter groups; the table that shows both."""

from jaxft.tuning.freeze import ADAPTER_TERMS, ADAPTERS, FreezeSpec, freeze_updates, keep_statistics, make_mask, trains
from jaxft.tuning.groups import Group, assign, default_groups
from jaxft.tuning.layerwise import layers, layerwise_groups
from jaxft.tuning.table import parameter_table

__all__ = [
    "ADAPTERS",
    "ADAPTER_TERMS",
    "FreezeSpec",
    "Group",
    "assign",
    "default_groups",
    "freeze_updates",
    "keep_statistics",
    "layers",
    "layerwise_groups",
    "make_mask",
    "parameter_table",
    "trains",
]
