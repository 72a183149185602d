"""What was fitted to features becomes the head of their network."""

from __future__ import annotations

import numpy as np

from jaxft import tree
from jaxft.errors import JaxftError
from jaxft.models import Model
from jaxft.probe.linear import Linear
from jaxft.probe.zero_shot import TextClassifier
from jaxft.typing import Params


def has_linear_head(model: Model) -> bool:
    """Whether the logits are a linear map of the features (SqueezeNet's are not), with a head of its own to change."""
    linear = getattr(model.module, "head", "") == "linear" and model.architecture.head_reads == "features"
    return linear and len(_kernels(model)) in (1, 2) and not _others(model)


def with_zero_shot_head(model: Model, params: Params, texts: TextClassifier, projection: np.ndarray | None) -> Params:
    """The parameters with the head whose logits are `texts.logits(features @ projection)`: where a fine-tune of a zero-shot
    classifier begins (Wortsman et al., 2022).

    Args:
      model: with a head "cosine:E", or without a projection "cosine".
      params: all of them; the head's are replaced.
      texts: of the network's classes, in their order.
      projection: [D, E] of `jaxft.weights.image_projection`; None is none.

    Raises:
      JaxftError: another head, another number of classes, or texts of another width.
    """
    width = texts.embeddings.shape[1]
    wanted = "cosine" if projection is None else f"cosine:{width}"
    if getattr(model.module, "head", "") != wanted or model.architecture.head_reads != "features":
        raise JaxftError(
            f"texts {width} wide{'' if projection is None else ', and weights with a projection'} need "
            f"config.model.head='{wanted}', it is '{getattr(model.module, 'head', '')}'"
        )
    shapes, flat = tree.flatten(model.shapes[0]), dict(tree.flatten(params))
    values = {
        "proj/kernel": projection,
        "kernel": texts.scale * texts.embeddings.T,
        "bias": np.full(len(texts.class_names), texts.bias),
    }
    for path in _head(model):
        value = values[next(name for name in values if f"/{path}".endswith(f"/{name}"))]
        assert value is not None
        if tuple(shapes[path].shape) != value.shape:
            raise JaxftError(f"{path} is {list(shapes[path].shape)}, what the texts make of it {list(value.shape)}")
        flat[path] = np.asarray(value, np.float32)
    return tree.unflatten(flat)


def with_linear_head(model: Model, params: Params, linear: Linear) -> Params:
    """The parameters with the head whose logits are `linear.logits(features)`, in f32.

    A network with a head for each half of its features, whose mean are the logits (DeiT's distilled ones), gets both.

    Args:
      model: with a linear head.
      params: all of them; the head's are replaced.
      linear: of `outputs["features"]` [B, D] to the network's number of classes.

    Raises:
      JaxftError: another kind of head, or a map of other widths.
    """
    if not has_linear_head(model):
        raise JaxftError(f"the head of {model.name} is no linear map of its features: a linear probe cannot be written into it")
    kernels, flat = _kernels(model), dict(tree.flatten(params))
    shapes = tree.flatten(model.shapes[0])
    parts = np.split(linear.kernel, len(kernels)) if len(linear.kernel) % len(kernels) == 0 else [linear.kernel]
    for path, part in zip(kernels, parts, strict=True):
        if tuple(shapes[path].shape) != part.shape:
            raise JaxftError(f"{path} is {list(shapes[path].shape)}, the linear map {list(part.shape)}")
        flat[path] = np.asarray(part * len(kernels), np.float32)
        flat[_bias(path)] = np.asarray(linear.bias, np.float32)
    return tree.unflatten(flat)


def _head(model: Model) -> list[str]:
    """'/' paths of the head's leaves."""
    return [path for path in tree.paths(model.shapes[0]) if model.stage_of(path) == "head"]


def _kernels(model: Model) -> list[str]:
    """In the order of the halves of the features: that of the network's stages."""
    last = model.stages["head"]
    found = [path for path in _head(model) if path.endswith("/kernel")]
    return sorted(found, key=lambda path: next(n for n, glob in enumerate(last) if tree.matches(glob, path)))


def _bias(kernel: str) -> str:
    return kernel.removesuffix("kernel") + "bias"


def _others(model: Model) -> set[str]:
    """Leaves of the head that are no kernel or its bias."""
    known = {path for kernel in _kernels(model) for path in (kernel, _bias(kernel))}
    return set(_head(model)) - known
