"""A network of the user's own, named "module:function" in a config: examples/custom_architecture.py."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxft
from jaxft import tree
from jaxft.errors import JaxftError
from jaxft.models import build, split_tag
from jaxft.tuning import FreezeSpec, make_mask, trains
from jaxft.weights import save_safetensors

NAME = "examples.custom_architecture:small"

pytestmark = pytest.mark.usefixtures("quick_compiles")


@pytest.fixture(autouse=True, scope="module")
def examples():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2]))
        yield


@pytest.fixture(scope="module")
def made(examples):
    return jaxft.create_model(NAME, 5, size=16)


def test_every_parameter_has_one_stage_and_each_stage_can_be_the_first(made):
    model, params, state = made
    assert (model.name, list(model.stages)) == (NAME, ["stage1", "stage2", "stage3", "head"])
    for path in tree.paths(params):
        assert sum(any(tree.matches(glob, path) for glob in globs) for globs in model.stages.values()) == 1, path
    image = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    whole, _ = model.apply(params, state, image)
    assert whole["logits"].shape == (2, 5)
    for stage in list(model.stages)[1:]:
        rest, _ = model.apply(params, state, whole[model.input_of(stage)], start=stage)
        np.testing.assert_array_equal(rest["logits"], whole["logits"])


def test_a_frozen_stage_keeps_its_statistics_and_what_is_recomputed_is_the_same(made):
    model, params, state = made
    mask = make_mask(FreezeSpec.parse("from:stage3"), params, model.stages)
    image = jax.random.normal(jax.random.key(0), (4, 16, 16, 3))
    outputs, new = model.apply(params, state, image, train=trains(mask), rng=jax.random.key(1))
    before, after = tree.flatten(state), tree.flatten(new)
    moved = {path for path, value in before.items() if not jnp.array_equal(value, after[path])}
    assert moved == {"batch_stats/stage3/bn/mean", "batch_stats/stage3/bn/var"}
    again = build(NAME, 5, size=16, remat="all")
    same, _ = again.apply(params, state, image, train=trains(mask), rng=jax.random.key(1))
    np.testing.assert_allclose(same["logits"], outputs["logits"], rtol=1e-6)


def test_its_weights_are_read_by_its_own_names_and_a_new_head_is_drawn(made, tmp_path):
    _, params, state = made
    flat = {name: np.asarray(value) for name, value in tree.flatten({"params": params, **state}).items()}
    save_safetensors(tmp_path / "own.safetensors", flat, {})
    again = jaxft.create_model(NAME, 5, str(tmp_path / "own.safetensors"))
    np.testing.assert_array_equal(again.params["stage2"]["conv"]["kernel"], params["stage2"]["conv"]["kernel"])
    np.testing.assert_array_equal(again.params["head"]["kernel"], params["head"]["kernel"])
    other = jaxft.create_model(NAME, 3, str(tmp_path / "own.safetensors"))
    assert other.params["head"]["kernel"].shape == (64, 3)


def test_what_is_no_network_is_said():
    assert split_tag(NAME) == (NAME, "")
    for name, said in (
        ("examples.custom_architecture:smal", "'examples.custom_architecture' has no 'smal' (did you mean 'small'?)"),
        ("examples.custom_architectur:small", "cannot import 'examples.custom_architectur'"),
        ("jaxft.models:list_models", "the network 'jaxft.models:list_models' returned list, not a jaxft.models.Architecture"),
    ):
        with pytest.raises(JaxftError) as raised:
            build(name)
        assert said in str(raised.value)
    with pytest.raises(JaxftError, match=f"{NAME} has no weights 'imagenet'; it has none"):
        jaxft.create_model(NAME, 5, "imagenet")
