"""Networks as pure functions: `build` makes one by name, `pretrained` says where its weights are."""

from jaxft.models.architecture import Architecture, Positions
from jaxft.models.model import Model
from jaxft.models.records import IMAGENET, Pretrained, is_tag, pretrained, pretrained_records, size_of, split_tag
from jaxft.models.registry import architecture_of, build, list_models

__all__ = [
    "IMAGENET",
    "Architecture",
    "Model",
    "Positions",
    "Pretrained",
    "architecture_of",
    "build",
    "is_tag",
    "list_models",
    "pretrained",
    "pretrained_records",
    "size_of",
    "split_tag",
]
