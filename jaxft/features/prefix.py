"""The frozen beginning of a network: where it ends, what it gives, and what its output depends on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxft import tree
from jaxft.errors import JaxftError
from jaxft.models import Model
from jaxft.preprocessing import on_pixels
from jaxft.tuning import trains
from jaxft.typing import ApplyFn, Mask, ModelState, Outputs, Params, Trains


@dataclasses.dataclass(frozen=True)
class Prefix:
    """All stages before `stage`, the first with a trained leaf.

    Attributes:
      model: the whole network.
      stage: where training begins.
      shape, dtype: of the prefix's output, one example.
    """

    model: Model
    stage: str
    shape: tuple[int, ...]
    dtype: jnp.dtype

    def run(self, dtype: np.dtype) -> Callable[[Params, ModelState, jax.Array], jax.Array]:
        """`(params, model_state, pixels uint8 [B, S, S, C]) -> features [B, ...]` in `dtype`.

        The whole network is written down; what comes after the features is never computed once it is jitted.
        """
        apply, name = on_pixels(self.model.apply, self.model.preprocessing), self.model.input_of(self.stage)

        def features(params: Params, model_state: ModelState, image: jax.Array) -> jax.Array:
            outputs, _ = apply(params, model_state, image, train=False, rng=None)
            return outputs[name].astype(dtype)

        return features

    @property
    def rest(self) -> ApplyFn:
        """The network from `stage` on, as an `ApplyFn` whose image is the features [B, ...]."""

        def apply(
            params: Params, model_state: ModelState, image: jax.Array, *, train: bool | Trains, rng: jax.Array | None
        ) -> tuple[Outputs, ModelState]:
            return self.model.apply(params, model_state, image.astype(self.dtype), train=train, rng=rng, start=self.stage)

        return apply

    def digest(self, params: Params, model_state: ModelState) -> str:
        """sha256 over names and values of the prefix's parameters and statistics."""
        before = list(self.model.stages)[: list(self.model.stages).index(self.stage)]
        statistics = {f"{kind}:{path}": leaf for kind, part in model_state.items() for path, leaf in tree.flatten(part).items()}
        named = {**tree.flatten(params), **statistics}
        return tree.digest(
            {name: leaf for name, leaf in named.items() if self.model.stage_of(name.rpartition(":")[2]) in before}
        )


def frozen_prefix(model: Model, mask: Mask, params: Params, model_state: ModelState) -> Prefix | None:
    """The stages before the first one with a trained leaf; None where that is the first stage.

    Args:
      model: the network.
      mask: what is trained.
      params, model_state: arrays or abstract.

    Raises:
      JaxftError: a BatchNorm of those stages is in train mode all the same: its parameters are spread over stages.
    """
    trained = {model.stage_of(path) for path, flag in tree.flatten(mask).items() if flag}
    stages = list(model.stages)
    first = min(stages.index(stage) for stage in trained)
    if first == 0:
        return None
    # By the mask all modules of the stages before are off: their BatchNorms, and dropout and stochastic depth, which belong
    # to a layer or block of their stage. What could be on is a module that lies in two stages.
    on = trains(mask)
    norms = {path.rpartition("/")[0] for path in tree.paths(model_state.get("batch_stats", {}))}
    for path in tree.paths(mask):
        norm = path.rpartition("/")[0]
        if norm in norms and (on is True or on(norm)) and stages.index(model.stage_of(path)) < first:
            raise JaxftError(
                f"the features before '{stages[first]}' cannot be kept: the BatchNorm '{norm}' trains, and '{path}' lies "
                f"before; freeze '{norm}', or set config.features.cache=False"
            )
    side = model.preprocessing.size
    image = jax.ShapeDtypeStruct((1, side, side, model.in_channels), jnp.float32)
    outputs, _ = jax.eval_shape(lambda *given: model.apply(*given, train=False), params, model_state, image)
    found: Any = outputs[model.input_of(stages[first])]
    return Prefix(model, stages[first], tuple(found.shape[1:]), found.dtype)
