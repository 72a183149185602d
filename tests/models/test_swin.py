"""Swin's windows: what is cut is put together again, and only windows that wrap around the map are parted. And the names of
torchvision's second version, whose state dict holds biases of keys that it never adds: `test_zoo.py` wants all to come back."""

import hashlib

import jax.numpy as jnp
import numpy as np
import originals
import pytest

from jaxft import tree
from jaxft.models import build
from jaxft.models.windows import windowed
from jaxft.weights import convert, export
from jaxft.weights.names import rules


@pytest.mark.parametrize("shape", [(8, 8), (4, 4), (9, 6), (3, 10), (1, 1)])
@pytest.mark.parametrize("shifted", [False, True])
def test_windows_come_back_where_they_were_and_attention_goes_only_to_neighbours(shape, shifted):
    height, width = shape
    # Every token is its place; padding is 0.
    place = jnp.stack(jnp.meshgrid(jnp.arange(1, height + 1), jnp.arange(1, width + 1), indexing="ij"), -1)[None]
    spans = height <= 4 and width <= 4

    def attend(x, regions):
        assert (regions is None) == (spans or not shifted)
        for number, tokens in enumerate(np.asarray(x[0])):
            for part in [...] if regions is None else [regions[number] == region for region in np.unique(regions[number])]:
                real = tokens[part][tokens[part].min(-1) > 0]
                assert len(real) == 0 or np.ptp(real, axis=0).max() < 4
        return x

    np.testing.assert_array_equal(windowed(place, 4, shifted, attend), place)


def test_torchvisions_second_version_has_its_names_and_shapes_and_its_biases_of_keys_are_dropped():
    model = build("swinv2_tiny_window8_256")
    table = rules(model, "torchvision")
    empty = tree.map_with_path(lambda _, leaf: np.broadcast_to(np.zeros((), np.float32), leaf.shape), model.variables)
    weights = export(empty, table)
    # torchvision 0.29's swin_v2_t: the parameters that its weights state, and the hash of its state dict without buffers.
    assert sum(value.size for value in weights.values()) == 28_351_570
    expected = "12c596a373423d1e34bb29d3d07aea397a1ee836f20af7f6b33acd67b08a61d5"
    assert originals.names_hash({name: value.shape for name, value in weights.items()}) == expected
    name = "features.1.0.attn.qkv.bias"
    weights[name] = np.arange(3 * 96, dtype=np.float32)
    weights["features.1.0.attn.relative_coords_table"] = np.zeros((1, 15, 15, 2), np.float32)
    params = convert(weights, table, model.variables).tree
    kept = np.concatenate([weights[name][:96], weights[name][192:]])
    np.testing.assert_array_equal(tree.flatten(params)["params/layers/0/blocks/0/attn/qv_bias"], kept)
    np.testing.assert_array_equal(export(params, table)[name], np.concatenate([kept[:96], np.zeros(96), kept[96:]]))


def test_the_indices_that_torchvision_keeps_are_written_as_it_makes_them():
    model = build("swin_tiny_patch4_window7_224")
    empty = tree.map_with_path(lambda _, leaf: np.broadcast_to(np.zeros((), np.float32), leaf.shape), model.variables)
    weights = export(empty, rules(model, "torchvision"))
    indices = [value for name, value in weights.items() if name.endswith("relative_position_index")]
    assert len(indices) == 12
    # Of torchvision 0.29's swin_t, as int64.
    expected = "e6eff5372d74d5e8f6c76b7eccd5d65184b7f5d262a39298991dc93d16246c82"
    assert {hashlib.sha256(value.astype(np.int64).tobytes()).hexdigest() for value in indices} == {expected}
    convert(weights, rules(model, "torchvision"), model.variables)
