"""The name tables: for each family of networks and each convention of names, where every tensor goes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxft import tree
from jaxft.errors import JaxftError, near
from jaxft.models import Model, architecture_of
from jaxft.preprocessing import Preprocessing
from jaxft.weights.names import (
    alexnet,
    clip,
    convnext,
    deit,
    densenet,
    dinov2,
    dinov3,
    efficientnet,
    efficientnet_lite,
    efficientnetv2,
    googlenet,
    inception,
    mixer,
    mnasnet,
    mobilenetv2,
    mobilenetv3,
    regnet,
    resnet,
    resnetv2,
    siglip,
    squeezenet,
    swin,
    swinv2,
    vgg,
    vit,
)
from jaxft.weights.names.names import Names, TransformersConfig, table
from jaxft.weights.rules import Rule, export

#: A family's module has CONVENTIONS: convention -> the names of a member, by its config, None where it has none for that; and
#: ORIGINALS: library -> our name of a network -> what it is called there. Some have ARGUMENTS: our name -> what torchvision's
#: or Keras' is made with; those that Hugging Face's transformers has, `transformers_config`: by a member's config what it is
#: there.
_FAMILIES: dict[str, Any] = {
    "alexnet": alexnet,
    "clip": clip,
    "convnext": convnext,
    "deit": deit,
    "densenet": densenet,
    "dinov2": dinov2,
    "dinov3": dinov3,
    "efficientnet": efficientnet,
    "efficientnet_lite": efficientnet_lite,
    "efficientnetv2": efficientnetv2,
    "googlenet": googlenet,
    "inception_v3": inception,
    "mixer": mixer,
    "mnasnet": mnasnet,
    "mobilenetv2": mobilenetv2,
    "mobilenetv3": mobilenetv3,
    "regnet": regnet,
    "resnet": resnet,
    "resnetv2": resnetv2,
    "siglip": siglip,
    "squeezenet": squeezenet,
    "swin": swin,
    "swinv2": swinv2,
    "vgg": vgg,
    "vit": vit,
}

__all__ = [
    "Names",
    "TransformersConfig",
    "conventions",
    "foreign_shapes",
    "original_arguments",
    "original_name",
    "preprocessing",
    "rules",
    "transformers_config",
]


def _names(model: Model) -> dict[str, Names]:
    """Convention -> names, of those that have names for this member of the family."""
    family = _FAMILIES.get(model.architecture.family)  # of a user's own there are no names but ours
    known: Mapping[str, Callable[[Any], Names | None]] = getattr(family, "CONVENTIONS", {})
    found = {convention: names(model.architecture.config) for convention, names in known.items()}
    return {convention: names for convention, names in found.items() if names is not None}


def conventions(model: Model) -> tuple[str, ...]:
    """The conventions a network's weights can be read from and written in."""
    return tuple(_names(model))


def rules(model: Model, convention: str) -> tuple[Rule, ...]:
    """The table of a network and a convention.

    Raises:
      JaxftError: no such convention.
    """
    known = _names(model)
    if convention not in known:
        raise JaxftError(f"{model.name} has no names of '{convention}'{near(convention, known)}; it has {', '.join(known)}")
    return table(model, known[convention])


def preprocessing(model: Model, convention: str) -> Preprocessing:
    """What files in a convention expect of an image, where nothing more is known of them."""
    found = _names(model).get(convention)
    if found is None or found.pixels is None:
        return model.preprocessing
    mean, std = found.pixels
    return dataclasses.replace(model.preprocessing, mean=mean, std=std)


def foreign_shapes(model: Model, convention: str) -> dict[str, tuple[int, ...]]:
    """Name -> shape of all that a network's state dict has in a convention.

    Raises:
      JaxftError: no such convention.
    """
    # Zero-stride arrays: shapes cost no memory.
    empty = tree.map_with_path(lambda _, leaf: np.broadcast_to(np.zeros((), np.float32), leaf.shape), model.variables)
    return {name: value.shape for name, value in export(empty, rules(model, convention)).items()}


def transformers_config(model: Model) -> TransformersConfig | None:
    """What Hugging Face's transformers makes the same network of, for images of its size; None where that has none."""
    known = getattr(_FAMILIES.get(model.architecture.family), "transformers_config", None)
    found = known(model.architecture.config) if known and "transformers" in conventions(model) else None
    size = model.preprocessing.size
    return dataclasses.replace(found, others={**found.others, "image_size": size, **found.sized(size)}) if found else None


def original_name(name: str, library: str) -> str | None:
    """What a network of the registry is called in "torchvision", "timm" or "keras"; None where that has no such network."""
    return _FAMILIES[architecture_of(name).family].ORIGINALS.get(library, {}).get(name)


def original_arguments(model: Model, library: str) -> dict[str, Any]:
    """What the network of "torchvision", "timm" or "keras" is made with, so that it is `model`; but for its classes."""
    known = getattr(_FAMILIES[model.architecture.family], "ARGUMENTS", {}) if library != "timm" else {}
    found = dict(known.get(model.name, {}))
    sized = "size" in model.architecture.options
    if library == "timm" and (sized or model.architecture.window_pixels):
        found["img_size"] = model.preprocessing.size
    elif library != "keras" and sized:
        found["image_size"] = model.preprocessing.size
    return found
