"""The devices as a mesh of three axes, and batches on it: one program, the compiler adds what devices tell each other.

`data`: each part has its own examples, and everything else whole. `fsdp`: each part has its own examples too, and a part of
every large parameter (fully sharded data parallelism; Zhao et al., 2023; ZeRO stage 3, Rajbhandari et al., 2020). `tensor`: the
parts share their examples, and split the channels of layers (Shoeybi et al., 2019).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxft.errors import JaxftError, near

Tree = TypeVar("Tree")

AXES = ("data", "fsdp", "tensor")
#: The axes over which a batch is split.
BATCH_AXES = ("data", "fsdp")
_LAYOUT = "a mesh is written '2x4x1' (data x fsdp x tensor) or 'data=2,fsdp=4', with * for as many devices as are left"


def make_mesh(layout: str = "", devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with the axes `data`, `fsdp`, `tensor` over all devices of all processes (or the given ones).

    Args:
      layout: sizes, "2x4x1" or "data=2,fsdp=4". An axis that is not named has size 1, but `data` what is left;
        `*` is what is left too. "" puts all devices on `data`.
      devices: in their order; neighbours on `tensor` come next to each other, then those on `fsdp`. Several slices of TPUs are
        parts of `data`: the network between them is the slow one.

    Raises:
      JaxftError: no such layout, or not for so many devices.
    """
    devices = list(devices or jax.devices())
    sizes = _sizes(layout, len(devices))
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices > 1:
        if sizes[0] % slices:
            raise JaxftError(f"config.parallel.mesh splits 'data' into {sizes[0]}, not a multiple of the {slices} slices")
        within = (sizes[0] // slices, *sizes[1:])
        placed = mesh_utils.create_hybrid_device_mesh(within, (slices, 1, 1), devices)
        return Mesh(placed, AXES, axis_types=(AxisType.Auto,) * 3)
    # jax.make_mesh makes Explicit axes unless told otherwise; here the compiler is to propagate shardings.
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def fixed_sizes(layout: str) -> dict[str, int] | None:
    """The sizes of all axes, where a layout says them; None where one takes what is left.

    Raises:
      JaxftError: no such layout.
    """
    sizes = {"data": "*", "fsdp": "1", "tensor": "1"} | _named(layout, f"config.parallel.mesh is '{layout}'")
    return None if "*" in sizes.values() else {axis: int(sizes[axis]) for axis in AXES}


def _sizes(layout: str, devices: int) -> tuple[int, int, int]:
    where = f"config.parallel.mesh is '{layout}'"
    given = _named(layout, where)
    sizes = {"data": "1" if "*" in given.values() else "*", "fsdp": "1", "tensor": "1"} | given
    known = math.prod(int(size) for size in sizes.values() if size != "*")
    left = list(sizes.values()).count("*")
    if left > 1:
        raise JaxftError(f"{where}: only one axis can take what is left")
    if known < 1:
        raise JaxftError(f"{where}: an axis has at least one part")
    if devices % known if left else devices != known:
        total = "x".join(sizes[axis] for axis in AXES)
        wanted = f"a multiple of {known}" if left else str(known)
        raise JaxftError(f"{where}, {total} (data x fsdp x tensor), for {wanted} devices: there are {devices}")
    data, fsdp, tensor = (devices // known if sizes[axis] == "*" else int(sizes[axis]) for axis in AXES)
    return data, fsdp, tensor


def _named(layout: str, where: str) -> dict[str, str]:
    text = re.sub(r"\s", "", layout)
    if not text:
        return {}
    if re.fullmatch(r"(\d+|\*)(x(\d+|\*)){2}", text):
        return dict(zip(AXES, text.split("x"), strict=True))
    found: dict[str, str] = {}
    for part in text.split(","):
        axis, _, size = part.partition("=")
        if not re.fullmatch(r"\d+|\*", size):
            raise JaxftError(f"{where}: {_LAYOUT}")
        if axis not in AXES:
            raise JaxftError(f"{where}: there is no axis '{axis}'{near(axis, AXES)}; the axes are {', '.join(AXES)}")
        if axis in found:
            raise JaxftError(f"{where}: '{axis}' is given twice")
        found[axis] = size
    return found


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first dimension split over `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def batch_parts(mesh: Mesh) -> int:
    """Into how many parts a batch is split."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """Puts every leaf whole on every device of the mesh."""
    return put(tree, jax.tree.map(lambda _: replicated(mesh), tree))


def put(tree: Tree, shardings: Tree) -> Tree:
    """Puts arrays where `shardings`, a tree of the same shape, says: each process gives its devices their parts only.

    Every process must hold the same values; nothing is compared.
    """
    return jax.tree.map(_put, tree, shardings)


def _put(leaf: jax.Array | np.ndarray, sharding: NamedSharding) -> jax.Array:
    if isinstance(leaf, jax.Array) or sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding)
    whole = np.asarray(leaf)
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])


def process_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """The rows of a global batch that this process must have, ascending: int64 [b]. Processes that hold parts of the same
    examples, along `tensor`, have the same rows."""
    found = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    rows = {row for index in found if index is not None for row in range(*index[0].indices(batch_size))}
    return np.array(sorted(rows), np.int64)


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Makes global arrays [B, ...] from this process's rows of a batch, `process_rows`, in their order. B may differ by key."""
    sharding = batch_sharding(mesh)
    if sharding.is_fully_addressable:
        return {key: jax.device_put(value, sharding) for key, value in batch.items()}
    parts = batch_parts(mesh)
    rows = process_rows(mesh, parts)  # of the parts: each holds as many examples
    place = {int(part): number for number, part in enumerate(rows)}

    def local(value: np.ndarray) -> jax.Array:
        share = len(value) // len(rows)  # a part's

        def of(index: Any) -> np.ndarray:
            start = place[(index[0].start or 0) // share] * share
            return value[start : start + share]

        return jax.make_array_from_callback((share * parts, *value.shape[1:]), sharding, of)

    return {key: local(value) for key, value in batch.items()}


def check_batch_size(batch_size: int, mesh: Mesh, where: str) -> None:
    """Raises JaxftError unless the global batch splits evenly over the devices that have examples of their own."""
    parts = batch_parts(mesh)
    if batch_size < 1 or batch_size % parts:
        lower = max(parts, batch_size // parts * parts)
        what = f"{parts} devices" if parts == mesh.size else f"{parts} parts of the mesh"
        raise JaxftError(f"{where} is {batch_size}, not a multiple of the {what}; {lower} would be")
