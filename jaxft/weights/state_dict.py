"""Finds the tensors in what a training script saved: a state dict by itself, or one somewhere beside other things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxft.weights.limits import UnsafeCheckpoint
from jaxft.weights.pickle_calls import Opaque

#: Keys under which training scripts put a state dict. The first found counts: averaged weights are the better ones.
_NESTED = (
    "state_dict_ema", "model_ema", "ema_state_dict", "state_dict", "model_state_dict", "model_state", "model", "module",
    "net", "weights",
)  # fmt: skip
#: What wrappers (data parallel, compiled, Lightning) put before every name.
_PREFIXES = ("module.", "_orig_mod.", "model.")
_MAX_NESTING = 4  # of keys gone down, and of prefixes cut
_SAVE_IT = "save model.state_dict() with torch.save"


def unwrap(found: Any) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The named tensors of a checkpoint.

    Args:
      found: what `read_zip` and `read_legacy` give.

    Returns:
      Name -> array, and what was unwrapped on the way: keys gone down (`state_dict`), prefixes cut (`module.`).

    Raises:
      UnsafeCheckpoint: no named tensors, or one of a kind that is not supported (sparse, quantised).
    """
    if isinstance(found, Opaque):
        raise UnsafeCheckpoint(f"it holds an object ({found.name[:80]}), not a state dict: {_SAVE_IT}")
    if not isinstance(found, Mapping):
        kind = "tensor" if isinstance(found, np.ndarray) else type(found).__name__
        raise UnsafeCheckpoint(f"it holds a {kind}, not a state dict: {_SAVE_IT}")
    steps: list[str] = []
    for _ in range(_MAX_NESTING):
        key = next((key for key in _NESTED if isinstance(found.get(key), Mapping) and _has_tensors(found[key])), None)
        if key is None:
            break
        found = found[key]
        steps.append(key)
    for name, value in found.items():
        if isinstance(value, Opaque) and value.name.startswith("torch._utils._rebuild"):
            raise UnsafeCheckpoint(f"'{name}' is a kind of tensor that is not supported ({value.name[:80]})")
    tensors = {name: value for name, value in found.items() if isinstance(name, str) and isinstance(value, np.ndarray)}
    if not tensors:
        keys = ", ".join(repr(key)[:40] for key in list(found)[:5] if isinstance(key, str | int)) or "nothing"
        raise UnsafeCheckpoint(f"it holds no tensors by name, but {keys}: {_SAVE_IT}")
    for _ in range(_MAX_NESTING):
        prefix = next((prefix for prefix in _PREFIXES if all(name.startswith(prefix) for name in tensors)), None)
        if prefix is None:
            break
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
        steps.append(prefix)
    return tensors, tuple(steps)


def _has_tensors(found: Mapping[Any, Any]) -> bool:
    """Whether there is a tensor at any depth. Visits a container once: a pickle may share them, in circles too."""
    seen: set[int] = set()
    waiting = [found]
    while waiting:
        container = waiting.pop()
        if id(container) in seen:
            continue
        seen.add(id(container))
        for value in container.values():
            if isinstance(value, np.ndarray):
                return True
            if isinstance(value, Mapping):
                waiting.append(value)
    return False
