"""Where arrays live on eight devices: whole on each, split along the batch, or as a tree of shardings says."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxft.errors import JaxftError
from jaxft.parallel import (
    batch_parts,
    batch_sharding,
    check_batch_size,
    make_mesh,
    peak_bytes,
    process_rows,
    put,
    put_batch,
    replicate,
    replicated,
)
from jaxft.parallel import mesh as mesh_module

TREE = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": {"c": np.float32(2), "d": np.arange(5, dtype=np.int32)}}


AXES = ("data", "fsdp", "tensor")
LAYOUTS = {
    "": (8, 1, 1),
    "8x1x1": (8, 1, 1),
    "1x8x1": (1, 8, 1),
    "2x4x1": (2, 4, 1),
    "2x2x2": (2, 2, 2),
    "fsdp=4": (2, 4, 1),
    "tensor=2": (4, 1, 2),
    "fsdp=2,tensor=4": (1, 2, 4),
    "data=2,fsdp=*": (2, 4, 1),
    "fsdp=*": (1, 8, 1),
    "data=4,tensor=*": (4, 1, 2),
    "data=1,fsdp=*,tensor=2": (1, 4, 2),
    "*x2x1": (4, 2, 1),
    "1x*x2": (1, 4, 2),
    "1x1x*": (1, 1, 8),
    "data=*": (8, 1, 1),
    "  ": (8, 1, 1),
    " 2 x 4 x 1 ": (2, 4, 1),
    " data = 2 , fsdp = * ": (2, 4, 1),
}


def test_the_mesh_has_three_axes_over_all_devices_or_the_given_ones():
    mesh = make_mesh()
    assert mesh.axis_names == AXES
    assert mesh.size == len(jax.devices()) == 8
    assert list(mesh.devices.ravel()) == jax.devices()
    some = make_mesh(devices=jax.devices()[2:5])
    assert some.devices.shape == (3, 1, 1)
    assert list(some.devices.ravel()) == jax.devices()[2:5]


@pytest.mark.parametrize(("layout", "sizes"), LAYOUTS.items())
def test_a_layout_gives_each_axis_its_size(layout, sizes):
    mesh = make_mesh(layout)
    assert mesh.axis_names == AXES
    assert mesh.devices.shape == sizes
    assert list(mesh.devices.ravel()) == jax.devices()  # neighbours on the last axes
    assert mesh.axis_types == (AxisType.Auto,) * 3
    assert batch_parts(mesh) == sizes[0] * sizes[1]


def test_a_layout_is_for_the_devices_that_are_given():
    mesh = make_mesh("fsdp=2", jax.devices()[:6])
    assert mesh.devices.shape == (3, 2, 1)
    assert list(mesh.devices.ravel()) == jax.devices()[:6]


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("2x2x1", "2x2x1 (data x fsdp x tensor), for 4 devices: there are 8"),
        ("16x1x1", "16x1x1 (data x fsdp x tensor), for 16 devices: there are 8"),
        ("0x8x1", "an axis has at least one part"),
        ("fsdp=3", "*x3x1 (data x fsdp x tensor), for a multiple of 3 devices: there are 8"),
        ("fsdp=0", "an axis has at least one part"),
        ("data=3,fsdp=*", "3x*x1 (data x fsdp x tensor), for a multiple of 3 devices: there are 8"),
        ("fsdp=16", "*x16x1 (data x fsdp x tensor), for a multiple of 16 devices: there are 8"),
        ("data=8,fsdp=2", "8x2x1 (data x fsdp x tensor), for 16 devices: there are 8"),
        ("fsdb=4", "there is no axis 'fsdb' (did you mean 'fsdp'"),
        ("dta=4", "there is no axis 'dta' (did you mean 'data'"),
        ("model=4", "there is no axis 'model'; the axes are data, fsdp, tensor"),
        ("fsdp=2,fsdp=4", "'fsdp' is given twice"),
        ("*x*x1", "only one axis can take what is left"),
        ("data=*,fsdp=*", "only one axis can take what is left"),
        ("2x4", "a mesh is written '2x4x1' (data x fsdp x tensor) or 'data=2,fsdp=4', with * for as many devices"),
        ("8", "a mesh is written '2x4x1'"),
        ("2x2x2x1", "a mesh is written '2x4x1'"),
        ("axbxc", "a mesh is written '2x4x1'"),
        ("fsdp=-4", "a mesh is written '2x4x1'"),
        ("fsdp=four", "a mesh is written '2x4x1'"),
        ("fsdp", "a mesh is written '2x4x1'"),
        ("fsdp=4,", "a mesh is written '2x4x1'"),
        ("fsdp=4;data=2", "a mesh is written '2x4x1'"),
        ("2.0x4x1", "a mesh is written '2x4x1'"),
    ],
)
def test_a_layout_that_cannot_be_is_said_in_one_line(layout, message):
    with pytest.raises(JaxftError) as raised:
        make_mesh(layout)
    assert message in str(raised.value)
    assert str(raised.value).startswith(f"config.parallel.mesh is '{layout}'")
    assert "\n" not in str(raised.value)


def test_the_compiler_may_choose_shardings_inside_a_step():
    # With explicit axes this sum of a split and a whole array would be an error.
    mesh = make_mesh()
    split, whole = put_batch({"x": np.ones((16, 3), np.float32)}, mesh)["x"], replicate(np.ones((3, 3)), mesh)
    np.testing.assert_array_equal(jax.jit(lambda x, y: (x @ y).sum(0) + y[0])(split, whole), [49, 49, 49])


def test_a_replicated_tree_is_whole_on_every_device():
    mesh = make_mesh()
    placed = replicate(TREE, mesh)
    assert jax.tree.structure(placed) == jax.tree.structure(TREE)
    for leaf, expected in zip(jax.tree.leaves(placed), jax.tree.leaves(TREE), strict=True):
        assert leaf.sharding == replicated(mesh)
        assert leaf.is_fully_replicated
        assert len(leaf.addressable_shards) == 8
        for shard in leaf.addressable_shards:
            np.testing.assert_array_equal(shard.data, expected)
            assert shard.data.dtype == expected.dtype


def test_a_batch_is_split_along_its_first_dimension_in_order():
    mesh = make_mesh()
    batch = {
        "image": np.random.default_rng(0).integers(0, 256, (24, 4, 4, 3), dtype=np.uint8),
        "label": np.arange(24, dtype=np.int32),
        "mask": np.ones(24, np.float32),
        "soft": np.eye(24, 5, dtype=np.float32),
    }
    placed = put_batch(batch, mesh)
    assert placed.keys() == batch.keys()
    for key, value in placed.items():
        assert value.sharding == batch_sharding(mesh)
        assert value.dtype == batch[key].dtype
        np.testing.assert_array_equal(value, batch[key])
        for number, shard in enumerate(value.addressable_shards):
            assert shard.device == jax.devices()[number]
            np.testing.assert_array_equal(shard.data, batch[key][3 * number : 3 * number + 3])


@pytest.mark.parametrize(("layout", "sizes"), LAYOUTS.items())
def test_a_batch_is_split_over_data_and_fsdp_and_whole_along_tensor(layout, sizes):
    mesh = make_mesh(layout)
    parts, copies = sizes[0] * sizes[1], sizes[2]
    batch = {"image": np.arange(16 * 3).reshape(16, 3), "label": np.arange(16)}
    assert batch_sharding(mesh).spec == PartitionSpec(("data", "fsdp"))
    for key, value in put_batch(batch, mesh).items():
        np.testing.assert_array_equal(value, batch[key])
        for number, shard in enumerate(sorted(value.addressable_shards, key=lambda shard: shard.device.id)):
            start = number // copies * (16 // parts)
            np.testing.assert_array_equal(shard.data, batch[key][start : start + 16 // parts])


def test_a_tree_is_put_as_its_shardings_say_from_the_host_and_from_devices():
    mesh = make_mesh("2x2x2")
    values = {
        "wide": np.arange(64, dtype=np.float32).reshape(8, 8),
        "narrow": np.arange(4, dtype=np.int32),
        "one": np.float32(3),
    }
    specs = {"wide": PartitionSpec("fsdp", "tensor"), "narrow": PartitionSpec("tensor"), "one": PartitionSpec()}
    shardings = {name: NamedSharding(mesh, spec) for name, spec in specs.items()}
    for given in (values, jax.tree.map(jnp.asarray, values), replicate(values, mesh)):
        placed = put(given, shardings)
        for name, value in placed.items():
            assert value.sharding == shardings[name]
            assert value.dtype == values[name].dtype
            np.testing.assert_array_equal(value, values[name])
            for shard in value.addressable_shards:
                np.testing.assert_array_equal(shard.data, values[name][shard.index])
    assert placed["wide"].addressable_shards[0].data.shape == (4, 4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_process_has_all_rows_of_a_batch(layout):
    rows = process_rows(make_mesh(layout), 16)
    assert rows.dtype == np.int64
    np.testing.assert_array_equal(rows, np.arange(16))


class Elsewhere:
    """A sharding of which this process has some of the devices only, as in a job of several."""

    is_fully_addressable = False

    def __init__(self, sharding, devices):
        self._sharding, self._devices = sharding, devices

    def addressable_devices_indices_map(self, shape):
        return {device: index for device, index in self._sharding.devices_indices_map(shape).items() if device in self._devices}


@pytest.mark.parametrize(
    ("layout", "own", "rows"),
    [
        ("8x1x1", range(4), [*range(8)]),
        ("8x1x1", (0, 1, 4, 5), [0, 1, 2, 3, 8, 9, 10, 11]),  # every other pair of devices, as on a slice of TPUs
        ("8x1x1", (7, 2), [4, 5, 14, 15]),
        ("2x4x1", range(4, 8), [*range(8, 16)]),
        ("2x2x2", range(4), [*range(8)]),
        ("2x2x2", (0, 2, 4, 6), [*range(16)]),  # halves along `tensor`: each process has all rows
        ("1x1x8", (3,), [*range(16)]),
        ("4x1x2", (1, 6), [0, 1, 2, 3, 12, 13, 14, 15]),
    ],
)
def test_a_process_has_the_rows_of_its_devices_and_a_batch_comes_together_from_them(monkeypatch, layout, own, rows):
    mesh, devices = make_mesh(layout), [jax.devices()[number] for number in own]
    real = batch_sharding(mesh)
    monkeypatch.setattr(mesh_module, "batch_sharding", lambda mesh: Elsewhere(real, devices))
    found = process_rows(mesh, 16)
    assert found.dtype == np.int64
    assert found.tolist() == rows

    placed = {}

    def callback(shape, sharding, of):
        assert isinstance(sharding, Elsewhere)
        return placed.setdefault(
            shape, {device: of(index) for device, index in sharding.addressable_devices_indices_map(shape).items()}
        )

    whole = {"image": np.arange(16 * 3).reshape(16, 3), "label": np.arange(16), "more": np.arange(48)}  # three times as many
    monkeypatch.setattr(mesh_module.jax, "make_array_from_callback", callback)
    put_batch({key: value[process_rows(mesh, len(value))] for key, value in whole.items()}, mesh)
    assert placed.keys() == {(16, 3), (16,), (48,)}
    for value in whole.values():
        parts = placed[value.shape]
        assert parts.keys() == set(devices)
        for device, index in real.devices_indices_map(value.shape).items():
            if device in parts:
                np.testing.assert_array_equal(parts[device], value[index])


def test_slices_of_tpus_are_parts_of_data(monkeypatch):
    devices = [types.SimpleNamespace(id=number, slice_index=number // 4) for number in range(8)]
    asked = []

    def hybrid(within, between, given):
        asked.append((within, between, given))
        raise StopIteration

    monkeypatch.setattr(mesh_module.mesh_utils, "create_hybrid_device_mesh", hybrid)
    for layout, within in (("", (4, 1, 1)), ("2x4x1", (1, 4, 1)), ("4x1x2", (2, 1, 2))):
        with pytest.raises(StopIteration):
            make_mesh(layout, devices)
        assert asked.pop() == (within, (2, 1, 1), devices)
    with pytest.raises(JaxftError, match="splits 'data' into 1, not a multiple of the 2 slices"):
        make_mesh("fsdp=8", devices)


def test_a_sum_over_a_split_batch_is_the_sum_over_all_devices():
    mesh = make_mesh()
    values = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    found = jax.jit(lambda batch: (batch["x"] ** 2).sum())(put_batch({"x": values}, mesh))
    assert found.is_fully_replicated
    np.testing.assert_allclose(found, (values**2).sum(), rtol=1e-6)


@pytest.mark.parametrize("batch_size", [8, 16, 64, 800])
def test_batch_sizes_that_split_evenly_pass(batch_size):
    check_batch_size(batch_size, make_mesh(), "config.input.batch_size")


@pytest.mark.parametrize(("batch_size", "would_be"), [(20, 16), (7, 8), (9, 8), (1, 8), (0, 8), (-8, 8), (63, 56)])
def test_a_batch_size_that_does_not_split_is_told_the_next_one_that_would(batch_size, would_be):
    message = f"config.input.batch_size is {batch_size}, not a multiple of the 8 devices; {would_be} would be"
    with pytest.raises(JaxftError, match=message):
        check_batch_size(batch_size, make_mesh(), "config.input.batch_size")
    check_batch_size(would_be, make_mesh(), "config.input.batch_size")


@pytest.mark.parametrize(("layout", "parts"), [("1x8x1", 8), ("2x2x2", 4), ("4x1x2", 4), ("1x2x4", 2), ("1x1x8", 1)])
def test_a_batch_must_split_over_the_devices_that_have_examples_of_their_own(layout, parts):
    mesh = make_mesh(layout)
    for batch_size in (parts, 3 * parts):
        check_batch_size(batch_size, mesh, "x")
    what = "8 devices" if parts == 8 else f"{parts} parts of the mesh"
    for batch_size, would_be in ((0, parts), *(((3 * parts + 1, 3 * parts),) if parts > 1 else ())):
        with pytest.raises(JaxftError, match=f"x is {batch_size}, not a multiple of the {what}; {would_be} would be"):
            check_batch_size(batch_size, mesh, "x")


def test_on_one_device_any_positive_batch_size_passes():
    mesh = make_mesh(devices=jax.devices()[:1])
    for batch_size in (1, 2, 3, 17):
        check_batch_size(batch_size, mesh, "x")
    with pytest.raises(JaxftError, match="x is 0"):
        check_batch_size(0, mesh, "x")


def test_the_bytes_of_a_compiled_function_are_its_arguments_and_results_without_those_given_away():
    shape = jax.ShapeDtypeStruct((1000, 1000), jnp.float32)
    add = lambda x, y: x + y
    plain = peak_bytes(jax.jit(add).lower(shape, shape).compile())
    donated = peak_bytes(jax.jit(add, donate_argnums=0).lower(shape, shape).compile())
    assert 12e6 <= plain < 12.1e6
    assert 8e6 <= donated < 8.1e6


def test_the_bytes_of_a_split_batch_are_those_of_one_devices_share():
    mesh = make_mesh()
    shape = jax.ShapeDtypeStruct((8000, 100), jnp.float32, sharding=batch_sharding(mesh))
    compiled = jax.jit(lambda x: x * 2, out_shardings=batch_sharding(mesh)).lower(shape).compile()
    assert 2 * 0.4e6 <= peak_bytes(compiled) < 2 * 0.45e6


def test_where_the_backend_tells_nothing_the_bytes_are_unknown():
    class Silent:
        def memory_analysis(self):
            return None

    assert peak_bytes(Silent()) is None
