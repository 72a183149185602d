"""Where arrays live on eight devices: whole on each, or split along the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxft.errors import JaxftError
from jaxft.parallel import batch_sharding, check_batch_size, data_mesh, peak_bytes, put_batch, replicate, replicated

TREE = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": {"c": np.float32(2), "d": np.arange(5, dtype=np.int32)}}


def test_the_mesh_has_one_axis_over_all_devices_or_the_given_ones():
    mesh = data_mesh()
    assert mesh.axis_names == ("data",)
    assert mesh.size == len(jax.devices()) == 8
    assert list(mesh.devices.ravel()) == jax.devices()
    some = data_mesh(jax.devices()[2:5])
    assert list(some.devices.ravel()) == jax.devices()[2:5]


def test_the_compiler_may_choose_shardings_inside_a_step():
    # With explicit axes this sum of a split and a whole array would be an error.
    mesh = data_mesh()
    split, whole = put_batch({"x": np.ones((16, 3), np.float32)}, mesh)["x"], replicate(np.ones((3, 3)), mesh)
    np.testing.assert_array_equal(jax.jit(lambda x, y: (x @ y).sum(0) + y[0])(split, whole), [49, 49, 49])


def test_a_replicated_tree_is_whole_on_every_device():
    mesh = data_mesh()
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
    mesh = data_mesh()
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


def test_a_sum_over_a_split_batch_is_the_sum_over_all_devices():
    mesh = data_mesh()
    values = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    found = jax.jit(lambda batch: (batch["x"] ** 2).sum())(put_batch({"x": values}, mesh))
    assert found.is_fully_replicated
    np.testing.assert_allclose(found, (values**2).sum(), rtol=1e-6)


@pytest.mark.parametrize("batch_size", [8, 16, 64, 800])
def test_batch_sizes_that_split_evenly_pass(batch_size):
    check_batch_size(batch_size, data_mesh(), "config.input.batch_size")


@pytest.mark.parametrize(("batch_size", "would_be"), [(20, 16), (7, 8), (9, 8), (1, 8), (0, 8), (-8, 8), (63, 56)])
def test_a_batch_size_that_does_not_split_is_told_the_next_one_that_would(batch_size, would_be):
    message = f"config.input.batch_size is {batch_size}, not a multiple of the 8 devices; {would_be} would be"
    with pytest.raises(JaxftError, match=message):
        check_batch_size(batch_size, data_mesh(), "config.input.batch_size")
    check_batch_size(would_be, data_mesh(), "config.input.batch_size")


def test_on_one_device_any_positive_batch_size_passes():
    mesh = data_mesh(jax.devices()[:1])
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
    mesh = data_mesh()
    shape = jax.ShapeDtypeStruct((8000, 100), jnp.float32, sharding=batch_sharding(mesh))
    compiled = jax.jit(lambda x: x * 2, out_shardings=batch_sharding(mesh)).lower(shape).compile()
    assert 2 * 0.4e6 <= peak_bytes(compiled) < 2 * 0.45e6


def test_where_the_backend_tells_nothing_the_bytes_are_unknown():
    class Silent:
        def memory_analysis(self):
            return None

    assert peak_bytes(Silent()) is None
