"""The name tables: for each family of networks and each convention of names, where every tensor goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jaxft.errors import JaxftError, near
from jaxft.models import Model, architecture_of
from jaxft.weights.names import alexnet, convnext, efficientnet, googlenet, inception, resnet, squeezenet, vgg, vit
from jaxft.weights.names.names import Names, table
from jaxft.weights.rules import Rule

#: A family's module has CONVENTIONS: convention -> the names of a member, by its config; and ORIGINALS: library -> our name of
#: a network -> what it is called there; some have ARGUMENTS: our name -> what torchvision's is made with.
_FAMILIES: dict[str, Any] = {
    "alexnet": alexnet,
    "convnext": convnext,
    "efficientnet_lite": efficientnet,
    "googlenet": googlenet,
    "inception_v3": inception,
    "resnet": resnet,
    "squeezenet": squeezenet,
    "vgg": vgg,
    "vit": vit,
}

__all__ = ["Names", "conventions", "original_arguments", "original_name", "rules"]


def conventions(model: Model) -> tuple[str, ...]:
    """The conventions a network's weights can be read from and written in."""
    return tuple(_FAMILIES[model.architecture.family].CONVENTIONS)


def rules(model: Model, convention: str) -> tuple[Rule, ...]:
    """The table of a network and a convention.

    Raises:
      JaxftError: no such convention.
    """
    known: Mapping[str, Callable[[Any], Names]] = _FAMILIES[model.architecture.family].CONVENTIONS
    if convention not in known:
        raise JaxftError(f"{model.name} has no names of '{convention}'{near(convention, known)}; it has {', '.join(known)}")
    return table(model, known[convention](model.architecture.config))


def original_name(name: str, library: str) -> str | None:
    """What a network of the registry is called in "torchvision" or "timm"; None where that has no such network."""
    return _FAMILIES[architecture_of(name).family].ORIGINALS.get(library, {}).get(name)


def original_arguments(name: str) -> dict[str, Any]:
    """What torchvision's network is made with, so that it is the one of our registry called `name`."""
    return dict(getattr(_FAMILIES[architecture_of(name).family], "ARGUMENTS", {}).get(name, {}))
