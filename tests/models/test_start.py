"""A network that starts at a stage is the rest of the whole network: the same bits, in inference and in training."""

import functools

import jax
import numpy as np
import originals
import pytest
from compiled import USERS_GENERATOR

from jaxft import tree
from jaxft.errors import JaxftError
from jaxft.models import build, list_models
from jaxft.tuning import FreezeSpec, make_mask, trains

pytestmark = pytest.mark.usefixtures("quick_compiles")

KEY = jax.random.key(3)
#: The options of tiny members.
NETWORKS = {
    "vgg_plain": {"dropout": 0.5, "head": "mlp"},
    "resnet_basic": {"dropout": 0.2, "drop_path": 0.5},
    "efficientnet_timm": {"drop_path": 0.5},
    "vit_patch8": {"dropout": 0.2, "drop_path": 0.5},
}


@functools.cache
def _network(name):
    model = build(originals.cases()[name].architecture, 5, size=32, **NETWORKS[name])
    params, state = jax.jit(model.init)(jax.random.key(0))
    return model, params, state, jax.random.normal(jax.random.key(1), (4, 32, 32, 3))


def _measured(model, on, start=""):
    """A compiled `(trained, frozen, state, image) -> outputs of inference, and outputs, state and gradients of training`."""

    def loss(trained, frozen, state, image):
        params = tree.merge(trained, frozen)
        outputs, new = model.apply(params, state, image, train=on, rng=KEY, start=start)
        return (outputs["logits"] ** 2).mean(), (outputs, new)

    def run(trained, frozen, state, image):
        inferred, _ = model.apply(tree.merge(trained, frozen), state, image, start=start)
        grads, (outputs, new) = jax.grad(loss, has_aux=True)(trained, frozen, state, image)
        return inferred, outputs, new, grads

    return jax.jit(run, compiler_options=USERS_GENERATOR)


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("vgg_plain", "neck"),
        ("resnet_basic", "stage3"),
        ("resnet_basic", "head"),
        ("efficientnet_timm", "neck"),
        ("vit_patch8", "stage3"),
    ],
)
def test_started_at_a_stage_outputs_gradients_and_statistics_are_those_of_the_whole_network(name, start):
    model, params, state, image = _network(name)
    mask = make_mask(FreezeSpec.parse(f"from:{start}"), params, model.stages)
    on = trains(mask)
    trained, frozen = tree.split(params, mask)
    whole = _measured(model, on)(trained, frozen, state, image)
    started = _measured(model, on, start)
    inner = model.input_of(start)
    np.testing.assert_array_equal(whole[0][inner], whole[1][inner])  # what is frozen runs as in inference
    found = started(trained, {}, state, whole[0][inner])
    assert not np.array_equal(found[0]["logits"], found[1]["logits"])  # dropout or statistics of the batch
    names = list(model.stages)
    ran = {*names[names.index(start) : -1], "features", "logits"}
    for part in (0, 1):
        assert found[part].keys() == ran
        for key in ran:
            np.testing.assert_array_equal(found[part][key], whole[part][key], err_msg=key)
    jax.tree.map(np.testing.assert_array_equal, found[2], whole[2])
    assert tree.paths(found[3]) == tree.paths(whole[3])
    for path, expected in tree.flatten(whole[3]).items():
        value = tree.flatten(found[3])[path]
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max(), err_msg=path)


@pytest.mark.parametrize(
    "name",
    [
        "vgg16",
        "vgg16_bn",
        "resnet50",
        "resnet18d",
        "resnetv2_50x1_bit",
        "mobilenetv3_small_050",
        "squeezenet1_1",
        "efficientnet_lite1",
        "vit_tiny_patch16_224",
        "convnext_atto",
        "convnextv2_atto",
    ],
)
def test_every_stage_can_be_the_start_and_what_lies_before_it_may_be_missing(name):
    model = build(name, 7, size=32)
    params, state = model.shapes
    image = jax.ShapeDtypeStruct((2, 32, 32, 3), np.float32)
    whole, _ = jax.eval_shape(model.apply, params, state, image)
    for start in model.stages:
        inner = model.input_of(start)
        trained, _ = tree.split(params, make_mask(FreezeSpec.parse(f"from:{start}"), params, model.stages))
        from_start = functools.partial(model.apply, start=start)
        found, _ = jax.eval_shape(from_start, trained, state, whole[inner] if inner else image)
        names = list(model.stages)
        assert found == {key: whole[key] for key in (*names[names.index(start) : -1], "features", "logits")}


def test_the_input_of_the_first_stage_is_the_image_and_of_the_head_the_features():
    for name in list_models():
        model = build(name)
        first, second, *_, head = model.stages
        reads = "stage3" if name.startswith("squeezenet") else "features"
        assert [model.input_of(stage) for stage in (first, second, head)] == ["", first, reads]


def test_an_unknown_stage_and_a_wrong_number_of_channels_are_clear_errors():
    model, params, state, image = _network("resnet_basic")
    with pytest.raises(JaxftError, match=r" has no stage 'stage9' .did you mean 'stage.*; its stages are stem, stage1"):
        model.apply(params, state, image, start="stage9")
    for start in ("", "stem"):
        with pytest.raises(JaxftError, match="made for 3 channels, the image has 64"):
            model.apply(params, state, np.zeros((1, 32, 32, 64), np.float32), start=start)
