"""The network that a config names: its weights, its adapter, its head."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxft.adapters import with_adapter
from jaxft.data import Splits
from jaxft.errors import JaxftError
from jaxft.models import IMAGENET, Model, is_tag, split_tag
from jaxft.models import pretrained as pretrained_record
from jaxft.probe import read_texts, with_zero_shot_head
from jaxft.typing import Params
from jaxft.weights import image_projection, is_repository, open_repository


def adapted_network(model: Model, adapter: str, config: ConfigDict) -> Model:
    """The network with the adapter of this kind, if any."""
    if not adapter:
        return model
    try:
        return with_adapter(model, adapter, **config.adapter.options.to_dict())
    except JaxftError as error:
        raise JaxftError(f"config.adapter.options: {error}") from error


def with_adapters(model: Model, params: Params, seed: int) -> Params:
    """Parameters on the host, or shapes, with fresh ones of the adapter."""
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(params)):
        return model.shapes[0]  # all are drawn where they are to lie
    added = jax.jit(model.add_adapters)(params, jax.random.key(seed))
    return {**params, **jax.tree.map(np.asarray, {key: value for key, value in added.items() if key not in params})}


def with_zero_shot(config: ConfigDict, model: Model, params: Params, pretrained: str | None, splits: Splits) -> Params:
    """The network with the classifier that `config.model.zero_shot` makes for a head."""
    if pretrained is None or config.data.task != "classify":
        raise JaxftError("config.model.zero_shot needs pretrained weights (config.model.pretrained), and the task 'classify'")
    texts = read_texts(config.model.zero_shot).ordered(splits.class_names)
    return with_zero_shot_head(model, params, texts, image_projection(model.name, pretrained))


def network_and_weights(config: ConfigDict) -> tuple[str, str | None]:
    """The network of a config, and the tag, file or repository of its weights; None where these are drawn.

    Raises:
      JaxftError: the name says other weights than `config.model.pretrained`.
    """
    pretrained = config.model.pretrained or None
    network, named = _named(config.model.name)
    if named and pretrained in (IMAGENET, named):  # what the name says of weights is more than the default
        return network, named
    if named:
        raise JaxftError(
            f"config.model.name names the weights '{named}', config.model.pretrained '{pretrained}': give one of them"
        )
    return network, pretrained


def run_of(pretrained: str | None) -> str:
    """The workdir of the run whose weights `config.model.pretrained` names, `run:WORKDIR`; "" where it names others."""
    kind, _, workdir = (pretrained or "").partition(":")
    return workdir if kind == "run" else ""


def _named(name: str) -> tuple[str, str]:
    """The network, and the tag or the repository of its weights; "" where the name says neither."""
    return (open_repository(name).network, name) if is_repository(name) else split_tag(name)


def expecting(model: Model, tag: str | None, size: int | None) -> Model:
    """The network with the preprocessing of its weights, where `tag`, or a repository in its place, names them."""
    if tag is None or not (is_tag(tag) or is_repository(tag)):
        return model
    weights = open_repository(tag) if is_repository(tag) else pretrained_record(model.name, tag)
    found = weights.preprocessing.with_channels(model.in_channels)
    return dataclasses.replace(model, preprocessing=found.with_size(size) if size else found)
