"""The training step under `jax.pmap`, for programs that are written for it. New ones take `jax.jit` and a mesh.

`pmap` is in maintenance since JAX 0.8: it is `jit` of a `shard_map` itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxft.errors import JaxftError


def pmap_step(
    step: Callable[[Any, Any], tuple[Any, Any]], *, axis_name: str, devices: int | None = None
) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Wraps a step so that it runs under `jax.pmap` and takes and gives what the plain one does.

    Args:
      step: of `jaxft.train.make_train_step(..., axis_name=axis_name)`.
      axis_name: the mapped axis.
      devices: how many of this process's; None is all.

    Returns:
      `(state, batch) -> (state, metrics)`: state and metrics are one device's copy, the same on all; a batch [B, ...] is split
      over the devices.

    Raises:
      JaxftError: when called: the batch does not split over the devices.
    """
    count = devices or jax.local_device_count()
    mapped = jax.pmap(step, axis_name=axis_name, in_axes=(None, 0), out_axes=None, devices=jax.local_devices()[:count])

    def run(state: Any, batch: Any) -> tuple[Any, Any]:
        size = len(next(iter(batch.values())))
        if size % count:
            raise JaxftError(f"a batch of {size} does not split over {count} devices")
        return mapped(state, {key: np.reshape(value, (count, size // count, *value.shape[1:])) for key, value in batch.items()})

    return run
