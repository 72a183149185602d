"""Losses: plain functions of (outputs, batch) that give one number an example, neither masked nor averaged."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxft.errors import JaxftError, near
from jaxft.typing import Batch, LossFn, Outputs


def softmax_cross_entropy(outputs: Outputs, batch: Batch, *, label_smoothing: float = 0.0) -> jax.Array:
    """Cross-entropy [B] of `logits` [B, K] with `label` [B] (classes) or [B, K] (probabilities).

    With smoothing e the target is `(1 - e) * label + e / K`, as in Szegedy et al. (2016) and torch.
    """
    logits, label = outputs["logits"], batch["label"]
    classes = logits.shape[-1]
    target = jax.nn.one_hot(label, classes) if label.ndim == logits.ndim - 1 else label
    target = (1 - label_smoothing) * target + label_smoothing / classes
    return optax.softmax_cross_entropy(logits, target)


def binary_cross_entropy(outputs: Outputs, batch: Batch) -> jax.Array:
    """Mean over the K labels of the sigmoid cross-entropy [B]; `label` [B, K] in 0..1."""
    return optax.sigmoid_binary_cross_entropy(outputs["logits"], batch["label"]).mean(-1)


def focal(outputs: Outputs, batch: Batch, *, gamma: float = 2.0, alpha: float | None = None) -> jax.Array:
    """Softmax focal loss [B], `(1 - p)^gamma` times the cross-entropy of the labelled class (Lin et al., 2017).

    `alpha` scales the whole loss; None leaves it.
    """
    log_p = jax.nn.log_softmax(outputs["logits"])
    log_p = jnp.take_along_axis(log_p, batch["label"][:, None], axis=-1)[:, 0]
    return -(1.0 if alpha is None else alpha) * (1 - jnp.exp(log_p)) ** gamma * log_p


def sigmoid_focal(outputs: Outputs, batch: Batch, *, gamma: float = 2.0, alpha: float | None = 0.25) -> jax.Array:
    """Mean over the K labels of the sigmoid focal loss [B] (Lin et al., 2017); `alpha` weighs positives, None neither."""
    return optax.sigmoid_focal_loss(outputs["logits"], batch["label"], alpha=alpha, gamma=gamma).mean(-1)


def mean_squared_error(outputs: Outputs, batch: Batch) -> jax.Array:
    """Squared error [B]; `label` [B] against `logits` [B, 1], or [B, K] averaged over K."""
    logits, label = outputs["logits"], batch["label"]
    label = label.reshape(logits.shape)
    return ((logits - label) ** 2).mean(-1)


_BUILT_IN: dict[str, LossFn] = {
    function.__name__: function
    for function in (softmax_cross_entropy, binary_cross_entropy, focal, sigmoid_focal, mean_squared_error)
}


def import_function(name: str, what: str) -> Callable[..., Any]:
    """Imports `module:function`; every way this can fail is one clear error that says `what` was looked for."""
    module, _, function = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in function.split("."):
            found = getattr(found, part)
    except ImportError as error:
        raise JaxftError(f"{what} '{name}': cannot import '{module}' ({error})") from error
    except AttributeError as error:
        raise JaxftError(f"{what} '{name}': '{module}' has no '{function}'{near(function, dir(found))}") from error
    if not callable(found):
        raise JaxftError(f"{what} '{name}' is not a function")
    return found


def resolve(loss: str | LossFn, **options: Any) -> LossFn:
    """The loss of a name of this module, of `"module:function"`, or the function given, with `options` bound to it.

    Raises:
      JaxftError: no such loss, or options it does not take.
    """
    if callable(loss):
        function = loss
    elif ":" in loss:
        function = import_function(loss, "the loss")
    elif loss in _BUILT_IN:
        function = _BUILT_IN[loss]
    else:
        raise JaxftError(f"no loss is called '{loss}'{near(loss, _BUILT_IN)} (or give 'module:function')")
    taken = inspect.signature(function).parameters
    for key in options:
        if key not in taken:
            raise JaxftError(f"the loss '{loss}' takes no option '{key}'{near(key, taken)}")
    return functools.partial(function, **options) if options else function


def wants_forward(loss: LossFn) -> bool:
    """Whether a loss is of the second form, `(outputs, batch, *, forward, params)`."""
    taken = inspect.signature(loss).parameters
    return "forward" in taken or "params" in taken
