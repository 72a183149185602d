"""What is done around modules of a network from outside, by their '/' paths: the network itself knows nothing of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from jaxft.models.layers import Conv
from jaxft.typing import Around


@contextlib.contextmanager
def calls_around(around: Mapping[str, Around]) -> Iterator[None]:
    """Where a network is applied in here, calls of the modules named go through what is given for them.

    Args:
      around: '/' path -> `(call, x) -> y`; {} changes nothing.
    """
    if not around:
        yield
        return

    def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        path = "/".join(context.module.path)
        if context.method_name != "__call__" or path not in around:
            return call(*args, **kwargs)
        x, *others = args
        return around[path](lambda given: call(given, *others, **kwargs), x)

    with nn.intercept_methods(intercept):
        yield


class Called(NamedTuple):
    """A module that gave one array: its shape, and into how many groups a convolution takes its channels."""

    shape: tuple[int, ...]
    groups: int


def called_modules(module: nn.Module, image: jax.ShapeDtypeStruct) -> dict[str, Called]:
    """'/' path of every module that gives one array, in the order of the calls."""
    found: dict[str, Called] = {}

    def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        given = call(*args, **kwargs)
        if context.method_name == "__call__" and context.module.path and isinstance(given, jax.Array):
            groups = context.module.groups if isinstance(context.module, Conv) else 1
            found.setdefault("/".join(context.module.path), Called(given.shape, groups))
        return given

    with nn.intercept_methods(intercept):
        jax.eval_shape(lambda x: module.init({"params": jax.random.key(0)}, x, False), image)
    return found
