"""A fine-tuned network, ready to predict."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxft.adapters import merge_adapter
from jaxft.models import Model
from jaxft.preprocessing import on_pixels
from jaxft.typing import ApplyFn, ModelState, Params


@dataclasses.dataclass(frozen=True)
class FineTuned:
    """A network of a run, or of an adapter's file.

    Attributes:
      model, params, model_state: the network; `params` with its adapters, where it has such.
      class_names: of the logits, in their order.
      task: of `config.data.task`.
      step: how many steps had been made.
      record: what the run says of itself: "model", "preprocessing", "config" and more.
    """

    model: Model
    params: Params
    model_state: ModelState
    class_names: tuple[str, ...]
    task: str
    step: int
    record: dict[str, Any]

    def merged(self) -> FineTuned:
        """Without its adapter, whose part is in the weights then; itself, where it has none.

        Raises:
          JaxftError: an adapter that cannot be merged.
        """
        model, params = merge_adapter(self.model, self.params)
        return dataclasses.replace(self, model=model, params=params, record={**self.record, "adapter": None})

    @property
    def apply(self) -> ApplyFn:
        """The network on uint8 pixels [B, S, S, C]."""
        return on_pixels(self.model.apply, self.model.preprocessing)
