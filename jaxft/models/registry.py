"""Which networks there are, and how each is built."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from jaxft.errors import JaxftError, near
from jaxft.losses import import_function
from jaxft.models import (
    alexnet,
    clip,
    convnext,
    deit,
    densenet,
    dinov2,
    dinov3,
    efficientnet,
    efficientnetv2,
    googlenet,
    inception,
    mae,
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
    vgg,
    vit,
)
from jaxft.models.architecture import Architecture
from jaxft.models.model import Model

_FAMILIES = (
    alexnet,
    vgg,
    googlenet,
    inception,
    squeezenet,
    resnet,
    resnetv2,
    densenet,
    regnet,
    mobilenetv2,
    mobilenetv3,
    mnasnet,
    efficientnet,
    efficientnetv2,
    convnext,
    vit,
    deit,
    dinov2,
    dinov3,
    clip,
    siglip,
    swin,
    mixer,
)
_REGISTRY: dict[str, Architecture] = {name: entry for family in _FAMILIES for name, entry in family.ARCHITECTURES.items()}


def architecture_of(name: str) -> Architecture:
    """The registry's entry, or what a function of the user's own, "module:function", returns.

    Raises:
      JaxftError: no such network or function, or one that returns something else.
    """
    if ":" in name:
        made = import_function(name, "the network")()
        if not isinstance(made, Architecture):
            raise JaxftError(f"the network '{name}' returned {type(made).__name__}, not a jaxft.models.Architecture")
        return made
    if name not in _REGISTRY:
        raise JaxftError(f"no network is called '{name}'{near(name, _REGISTRY)} (`jaxft models` lists all)")
    return _REGISTRY[name]


def list_models(pattern: str = "*") -> list[str]:
    """Names of the networks that the glob `pattern` names."""
    return [name for name in _REGISTRY if fnmatch.fnmatchcase(name, pattern)]


def build(
    name: str | Architecture,
    num_classes: int | None = None,
    *,
    head: str = "linear",
    in_channels: int = 3,
    dropout: float | None = None,
    drop_path: float | None = None,
    dtype: str = "float32",
    size: int | None = None,
    remat: str = "",
) -> Model:
    """Builds a network without weights.

    Args:
      name: one of `list_models()`; an architecture of your own, `resnet.architecture(resnet.Config((1, 1, 1, 1), True))`; or
        "module:function", a function without arguments that returns one.
      num_classes: width of the logits; None is ImageNet's 1,000.
      head: "linear"; "mlp" (dense, ReLU, dense); "cosine" (of features of length 1), "cosine:512" (projected before to 512);
        several, "linear+cosine": the mean of their logits; or "mae", "mae:4x128" or "mae:4x128:0.6" (`jaxft.models.mae`), whose
        outputs are the numbers of the image, whatever `num_classes` is.
      in_channels: of the image.
      dropout, drop_path: rates in [0, 1); None is the network's own.
      dtype: "float32" or "bfloat16": what is computed in. Parameters are float32, logits too. "float64", for comparisons of
        gradients, needs JAX_ENABLE_X64.
      size: input size in pixels; None is the network's own.
      remat: stages that keep less for the backward pass: what is inside a block (AlexNet, VGG: a stage) is computed again
        there. The same function and names for less memory and more time. "", "all", or names and globs: "stage1,stage2".

    Raises:
      JaxftError: no such network, or an option it does not have.
    """
    architecture = architecture_of(name) if isinstance(name, str) else name
    name = name if isinstance(name, str) else architecture.family
    make = mae.masked_module(architecture) if mae.is_mae(head) else architecture.module
    if not mae.is_mae(head) and not all(re.fullmatch(r"linear|mlp|cosine(:[1-9]\d*)?", kind) for kind in head.split("+")):
        raise JaxftError(
            f"head is '{head}', not 'linear' or 'mlp', 'cosine' or 'cosine:WIDTH', or several with + between them, or 'mae'"
        )
    if dtype not in ("float32", "bfloat16", "float64"):
        raise JaxftError(f"dtype is '{dtype}', not 'float32', 'bfloat16' or 'float64'")
    if dtype == "float64" and not jax.config.read("jax_enable_x64"):
        raise JaxftError("dtype 'float64' needs JAX's 64-bit mode: set JAX_ENABLE_X64=1")
    classes = 1000 if num_classes is None else num_classes
    if classes < 1 or in_channels < 1:
        raise JaxftError(f"num_classes ({classes}) and in_channels ({in_channels}) must be at least 1")
    if size is not None and size < architecture.min_size:
        raise JaxftError(f"size is {size}: {name} needs at least {architecture.min_size} pixels")
    rates = {"dropout": dropout, "drop_path": drop_path}
    given: dict[str, Any] = {key: rate for key, rate in rates.items() if rate is not None}
    for key, rate in given.items():
        if key not in architecture.options:
            raise JaxftError(f"{name} has no {key}")
        if not 0 <= rate < 1:
            raise JaxftError(f"{key} is {rate}: it must lie in [0, 1)")
    if "size" in architecture.options:
        given["size"] = size or architecture.preprocessing.size
    if mae.is_mae(head):
        classes = given["size"] ** 2 * in_channels
    stages = architecture.stages(architecture.config)
    again = _recomputed(remat, stages)
    module = make(architecture.config, num_classes=classes, head=head, dtype=jnp.dtype(dtype), remat=again, **given)
    preprocessing = architecture.preprocessing.with_channels(in_channels)
    if size is not None:
        preprocessing = preprocessing.with_size(size)
    return Model(name, classes, in_channels, architecture, module, stages, preprocessing)


def _recomputed(remat: str, stages: Iterable[str]) -> frozenset[str]:
    """The stages that `remat` names. Stem, neck and head have no blocks."""
    have, found = [name for name in stages if name.startswith("stage")], set[str]()
    for term in filter(None, map(str.strip, remat.split(","))):
        named = have if term == "all" else fnmatch.filter(have, term)
        if not named:
            raise JaxftError(f"remat: no stage is called '{term}'{near(term, have)}; give 'all', or of {', '.join(have)}")
        found.update(named)
    return frozenset(found)
