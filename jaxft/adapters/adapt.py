"""A network with an adapter, and without it again."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from jaxft.adapters.bottleneck import bottleneck
from jaxft.adapters.lora import dora, lora
from jaxft.adapters.prompt import prompt
from jaxft.adapters.ssf import ssf
from jaxft.errors import JaxftError, near
from jaxft.models import Model
from jaxft.tuning import ADAPTERS
from jaxft.typing import Adapter, Params

_FACTORIES: dict[str, Callable[..., Adapter]] = {
    "lora": lora,
    "dora": dora,
    "ssf": ssf,
    "bottleneck": bottleneck,
    "prompt": prompt,
}
#: The kinds of adapters, which are terms of `FreezeSpec` too.
NAMES = tuple(_FACTORIES)


def make_adapter(model: Model, name: str, **options: Any) -> Adapter:
    """The adapter of a name of `NAMES` for a network.

    Args:
      model: the network, without an adapter.
      name: "lora", "dora", "ssf", "bottleneck" or "prompt".
      **options: of the function of that name in `jaxft.adapters`.

    Raises:
      JaxftError: no such adapter, an option it does not have, or one that does not fit the network.
    """
    if name not in _FACTORIES:
        raise JaxftError(f"no adapter is called '{name}'{near(name, NAMES)}; there are {', '.join(NAMES)}")
    known = [key for key in inspect.signature(_FACTORIES[name]).parameters if key != "model"]
    for key in options:
        if key not in known:
            raise JaxftError(f"the adapter '{name}' has no option '{key}'{near(key, known)}; it has {', '.join(known)}")
    return _FACTORIES[name](model, **options)


def with_adapter(model: Model, name: str, **options: Any) -> Model:
    """The network with an adapter, whose parameters are under `params["adapters"]`.

        model = with_adapter(model, "lora", rank=4)
        params = model.add_adapters(params, jax.random.key(0))
        mask = jaxft.make_mask(jaxft.FreezeSpec.parse("lora+head"), params, model.stages)

    Args:
      model, name, **options: see `make_adapter`.

    Raises:
      JaxftError: see `make_adapter`.
    """
    return adapted(model, make_adapter(model, name, **options))


def adapted(model: Model, adapter: Adapter) -> Model:
    """The network with an adapter that is made already, of your own perhaps.

    Raises:
      JaxftError: it has one.
    """
    if model.adapter is not None:
        raise JaxftError(f"{model.name} has an adapter already, '{model.adapter.name}': merge it first")
    stages = {stage: (*globs, *(f"{ADAPTERS}/{glob}" for glob in globs)) for stage, globs in model.stages.items()}
    return dataclasses.replace(model, adapter=adapter, stages=stages)


def can_merge(model: Model, params: Params) -> bool:
    """Whether a network has an adapter that `merge_adapter` merges."""
    return model.adapter is not None and not model.adapter.around(params[ADAPTERS])


def merge_adapter(model: Model, params: Params) -> tuple[Model, Params]:
    """The network without its adapter, and parameters with which it gives the same.

    Args:
      model: of `with_adapter`; one without an adapter is given back as it is.
      params: with "adapters".

    Raises:
      JaxftError: an adapter that is run, and cannot be merged.
    """
    if model.adapter is None:
        return model, params
    if not can_merge(model, params):
        raise JaxftError(f"an adapter of the kind '{model.adapter.name}' cannot be merged into kernels: it is run")
    own = {key: value for key, value in params.items() if key != ADAPTERS}
    stages = {
        stage: tuple(glob for glob in globs if not glob.startswith(f"{ADAPTERS}/")) for stage, globs in model.stages.items()
    }
    return dataclasses.replace(model, adapter=None, stages=stages), model.adapter.weights(own, params[ADAPTERS])
