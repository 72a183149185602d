"""From the name of a loss to the function."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from jaxft.errors import JaxftError, near
from jaxft.losses.continual import ewc
from jaxft.losses.distillation import distillation, feature_distillation
from jaxft.losses.fixmatch import fixmatch
from jaxft.losses.self_supervised import REPRESENTATION
from jaxft.losses.supervised import (
    binary_cross_entropy,
    focal,
    logit_adjusted,
    mean_squared_error,
    sigmoid_focal,
    softmax_cross_entropy,
)
from jaxft.typing import LossFn

#: What a loss is given by name besides outputs and batch; see `jaxft.typing.LossFn`.
WANTED = ("forward", "params", "average", "teacher", "anchor")

_BUILT_IN: dict[str, LossFn] = {
    function.__name__: function
    for function in (
        softmax_cross_entropy,
        logit_adjusted,
        binary_cross_entropy,
        focal,
        sigmoid_focal,
        mean_squared_error,
        distillation,
        feature_distillation,
        ewc,
        *REPRESENTATION,
        fixmatch,
    )
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


def resolve(loss: str | LossFn, given: Mapping[str, Any] | None = None, /, **options: Any) -> LossFn:
    """The loss of a name of this module, of `"module:function"`, or the function given, with `options` bound to it.

    Args:
      loss: a name or a function.
      given: what is bound besides where the loss takes it and `options` do not set it: `class_counts` and its like.

    Raises:
      JaxftError: no such loss, or options it does not take.
    """
    if callable(loss):
        function, name = loss, getattr(loss, "__name__", "the function given")
    elif ":" in loss:
        function, name = import_function(loss, "the loss"), loss
    elif loss in _BUILT_IN:
        function, name = _BUILT_IN[loss], loss
    else:
        raise JaxftError(f"no loss is called '{loss}'{near(loss, _BUILT_IN)} (or give 'module:function')")
    taken = inspect.signature(function).parameters
    for key in options:
        if key not in taken:
            raise JaxftError(f"the loss '{name}' takes no option '{key}'{near(key, taken)}")
    bound = {key: value for key, value in (given or {}).items() if key in taken} | options
    return functools.partial(function, **bound) if bound else function


def wanted(loss: LossFn) -> tuple[str, ...]:
    """Which of `WANTED` a loss takes: a loss of the second form, see `jaxft.typing.LossFn`."""
    return tuple(name for name in WANTED if name in inspect.signature(loss).parameters)
