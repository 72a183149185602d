"""Data parallelism with `jit` and `NamedSharding`: one program, the compiler adds the reductions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxft.errors import JaxftError

Tree = TypeVar("Tree")


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A one-dimensional mesh with the axis `data` over all devices of all processes (or the given ones)."""
    devices = list(devices or jax.devices())
    # jax.make_mesh makes Explicit axes unless told otherwise; here the compiler is to propagate shardings.
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first dimension split over `data`."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """Puts every leaf whole on every device of the mesh."""
    return jax.device_put(tree, replicated(mesh))


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Makes global arrays [B, ...] from this process's share [B / processes, ...] of a batch."""
    sharding = batch_sharding(mesh)
    return {key: jax.make_array_from_process_local_data(sharding, value) for key, value in batch.items()}


def check_batch_size(batch_size: int, mesh: Mesh, where: str) -> None:
    """Raises JaxftError unless the global batch splits evenly over the devices."""
    devices = mesh.size
    if batch_size < 1 or batch_size % devices:
        lower = max(devices, batch_size // devices * devices)
        raise JaxftError(f"{where} is {batch_size}, not a multiple of the {devices} devices; {lower} would be")
