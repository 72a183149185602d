"""Networks as pure functions: `build` makes one by name, `pretrained` says where its weights are."""

from jaxft.models.registry import (
    Model,
    Pretrained,
    architecture_of,
    build,
    list_models,
    pretrained,
    pretrained_records,
)

__all__ = ["Model", "Pretrained", "architecture_of", "build", "list_models", "pretrained", "pretrained_records"]
