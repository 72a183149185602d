"""A network as pure functions and names."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxft import tree
from jaxft.errors import JaxftError, near
from jaxft.models.architecture import Architecture, Stages
from jaxft.models.around import Called, called_modules, calls_around
from jaxft.ops import plain_ops
from jaxft.preprocessing import Preprocessing
from jaxft.tuning import ADAPTERS
from jaxft.typing import Adapter, Around, ModelState, Outputs, Params, Trains


@dataclasses.dataclass(frozen=True)
class Model:
    """A network as pure functions and names. Holds no arrays.

    Attributes:
      name: of the registry.
      num_classes, in_channels: width of the logits and of the image.
      architecture: the registry's entry.
      module: the linen module.
      stages: stage name -> globs over parameter paths, in the order of the network, the head last; together they name every
        parameter once.
      preprocessing: what an image must be.
      adapter: of `jaxft.adapters.with_adapter`, or None.
    """

    name: str
    num_classes: int
    in_channels: int
    architecture: Architecture
    module: nn.Module
    stages: Stages
    preprocessing: Preprocessing
    adapter: Adapter | None = None

    def init(self, rng: jax.Array, size: int | None = None) -> tuple[Params, ModelState]:
        """Random parameters and fresh statistics, f32. Works under `jit` and `eval_shape`.

        Args:
          rng: a key.
          size: input size in pixels; parameters do not depend on it (a network with `positions` takes no other).
        """
        side = size or self.preprocessing.size
        image = jnp.zeros((1, side, side, self.in_channels), jnp.float32)
        with plain_ops():  # nothing of what is computed is kept, and these are traced sooner
            variables = self.module.init({"params": rng}, image, False)
        params = self.add_adapters(variables["params"], rng)
        return params, {key: value for key, value in variables.items() if key != "params"}

    def add_adapters(self, params: Params, rng: jax.Array) -> Params:
        """A network's own parameters with fresh ones of its adapter; as they are, where it has none.

        Args:
          params: arrays or tracers.
          rng: the key that `init` takes.
        """
        if self.adapter is None:
            return params
        return {**params, ADAPTERS: self.adapter.init(jax.random.fold_in(rng, 1), params)}

    @functools.cached_property
    def shapes(self) -> tuple[Params, ModelState]:
        """What `init` gives, as shape structs."""
        params, state = jax.eval_shape(self.init, jax.random.key(0))
        return params, state

    @property
    def variables(self) -> dict[str, Any]:
        """`{"params": ..., "batch_stats": ...}` of shape structs."""
        params, state = self.shapes
        return {"params": params, **state}

    def apply(
        self,
        params: Params,
        model_state: ModelState,
        image: jax.Array,
        *,
        train: bool | Trains = False,
        rng: jax.Array | None = None,
        start: str = "",
    ) -> tuple[Outputs, ModelState]:
        """An `ApplyFn` on normalised images f32 [B, H, W, C]; with `start`, on what that stage takes.

        Args:
          params, model_state, train, rng: see `ApplyFn`. What lies before `start` is not read: it may be missing.
          image: images, or `outputs[input_of(start)]`.
          start: a stage: those before it are not run, and their maps are not in the outputs. The rest is what it is in the
            whole network: the same parameters, the same modules in train mode, the same dropout for the same key.
            `functools.partial(model.apply, start=...)` is an `ApplyFn` too.
        """
        if not (start and self.input_of(start)) and image.shape[-1] != self.in_channels:
            raise JaxftError(f"{self.name} was made for {self.in_channels} channels, the image has {image.shape[-1]}")
        rngs = None if rng is None else {"dropout": rng}
        params, around = self._adapted(params)
        variables = {"params": params, **model_state}
        with calls_around(around):
            if not train:
                plain: Any = self.module.apply(variables, image, False, start, rngs=rngs)
                return plain, model_state
            outputs, new = self.module.apply(variables, image, train, start, rngs=rngs, mutable=list(model_state))
        return dict(outputs), {key: new.get(key, value) for key, value in model_state.items()}

    def _adapted(self, params: Params) -> tuple[Params, Mapping[str, Around]]:
        """The parameters to compute with, and what is done around which modules."""
        if self.adapter is None:
            return params, {}
        own, adapters = {key: value for key, value in params.items() if key != ADAPTERS}, params.get(ADAPTERS, {})
        return self.adapter.weights(own, adapters), self.adapter.around(adapters)

    def input_of(self, stage: str) -> str:
        """The key of `outputs` that a stage takes: the stage before it, mostly "features" for the head; "" is the image.

        Raises:
          JaxftError: no such stage.
        """
        if stage not in self.stages:
            known = ", ".join(self.stages)
            raise JaxftError(f"{self.name} has no stage '{stage}'{near(stage, self.stages)}; its stages are {known}")
        *before, head = self.stages
        if stage == head:
            return self.architecture.head_reads
        place = before.index(stage)
        return before[place - 1] if place else ""

    @functools.cached_property
    def called(self) -> dict[str, Called]:
        """'/' path of every module of the network itself that gives one array -> what it gave, for one image."""
        side = self.preprocessing.size
        image = jax.ShapeDtypeStruct((1, side, side, self.in_channels), jnp.float32)
        with plain_ops():
            return called_modules(self.module, image)

    def stage_of(self, path: str) -> str:
        """The stage a parameter belongs to."""
        for stage, patterns in self.stages.items():
            if any(tree.matches(pattern, path) for pattern in patterns):
                return stage
        raise JaxftError(f"'{path}' is no parameter of {self.name}")
