"""The name tables: for each family of networks and each convention of names, where every tensor goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jaxft.errors import JaxftError, near
from jaxft.models import Model
from jaxft.weights.names import efficientnet, resnet, vgg, vit
from jaxft.weights.names.names import Names, table
from jaxft.weights.rules import Rule

#: Family -> convention -> the names of a member, by its config.
_FAMILIES: dict[str, Mapping[str, Callable[[Any], Names]]] = {
    "vgg": vgg.CONVENTIONS,
    "resnet": resnet.CONVENTIONS,
    "vit": vit.CONVENTIONS,
    "efficientnet_lite": efficientnet.CONVENTIONS,
}

__all__ = ["Names", "conventions", "rules"]


def conventions(model: Model) -> tuple[str, ...]:
    """The conventions a network's weights can be read from and written in."""
    return tuple(_FAMILIES[model.architecture.family])


def rules(model: Model, convention: str) -> tuple[Rule, ...]:
    """The table of a network and a convention.

    Raises:
      JaxftError: no such convention.
    """
    known = _FAMILIES[model.architecture.family]
    if convention not in known:
        raise JaxftError(f"{model.name} has no names of '{convention}'{near(convention, known)}; it has {', '.join(known)}")
    return table(model, known[convention](model.architecture.config))
