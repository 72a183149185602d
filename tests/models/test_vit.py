"""What is the Vision Transformer's own: tokens, position embeddings, the names of others."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seeded

from jaxft.errors import JaxftError
from jaxft.models import Positions, build
from jaxft.weights.names import foreign_shapes

FIXTURES = Path(__file__).parent / "fixtures"
POSITIONS = Positions("pos_embed", 16, prefix=1)
NAME = "vit_tiny_patch16_224"


@pytest.mark.parametrize(("head", "channels", "size"), [("linear", 3, 64), ("mlp", 1, 48)])
def test_every_stage_gives_the_class_token_and_one_token_a_patch(head, channels, size):
    model = build(NAME, 7, head=head, in_channels=channels, size=size)
    params, state = model.shapes
    image = jax.ShapeDtypeStruct((2, size, size, channels), jnp.float32)
    outputs, _ = jax.eval_shape(lambda p, s, x: model.apply(p, s, x), params, state, image)
    tokens = 1 + (size // 16) ** 2
    assert params["pos_embed"].shape == (1, tokens, 192)
    assert outputs["logits"].shape == (2, 7)
    assert outputs["features"].shape == (2, 192)
    for stage in ("stem", "stage1", "stage2", "stage3", "stage4", "neck"):
        assert outputs[stage].shape == (2, tokens, 192)
    assert state == {}


def test_bfloat16_computes_in_bfloat16_and_gives_float32_logits():
    model = build(NAME, 7, size=32, dtype="bfloat16")
    params, state = model.shapes
    image = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    outputs, _ = jax.eval_shape(lambda p, s, x: model.apply(p, s, x), params, state, image)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert {outputs[stage].dtype for stage in (*model.stages, "features") if stage != "head"} == {jnp.dtype("bfloat16")}
    assert outputs["logits"].dtype == jnp.float32


@pytest.mark.parametrize("side", [24, 7])
def test_resized_positions_are_timms(side):
    given = seeded.tensor(1, "positions", (1, 1 + 14 * 14, 4))
    found = POSITIONS.resized(given, side * 16)
    expected = np.load(FIXTURES / "vit_positions.npz")[str(side)]
    assert POSITIONS.size_of(given) == 224
    assert POSITIONS.size_of(found) == side * 16
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max() * 10)
    np.testing.assert_array_equal(POSITIONS.resized(given, 224), given)


def test_torchvisions_names_and_shapes_are_those_of_its_base_network():
    name = "vit_base_patch16_224"
    found = foreign_shapes(build(name), "torchvision")
    expected = json.loads((FIXTURES / "vit_b_16_names.json").read_text())
    assert {key: list(shape) for key, shape in found.items()} == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build(NAME, size=100), "size is 100, not a multiple of the 16 pixels of a patch: 96 or 112 would be"),
        (lambda: build(NAME).init(jax.random.key(0), 64), r"224x224 pixels, these have 64x64: make it with size="),
        (lambda: POSITIONS.size_of(np.zeros((1, 198, 4))), r"\[1, 198, 4\] are not .* a square number of patches"),
    ],
)
def test_sizes_that_do_not_fit_are_clear_errors(call, message):
    with pytest.raises(JaxftError, match=message):
        call()
