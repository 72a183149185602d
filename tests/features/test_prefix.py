"""Where the frozen beginning ends, that it really is frozen, and what tells two of them apart."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from jaxft import tree
from jaxft.errors import JaxftError
from jaxft.features import frozen_prefix
from jaxft.models import build
from jaxft.preprocessing import normalize
from jaxft.tuning import FreezeSpec, make_mask, trains

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)

pytestmark = pytest.mark.usefixtures("quick_compiles")


@functools.cache
def network(name):
    rates = {"dropout": 0.5} if name.startswith("vgg") else {"dropout": 0.5, "drop_path": 0.5}
    model = build(name, 5, size=32, **rates)
    return model, *model.shapes


def filled(params, model_state):
    """Numbers that keep the size of what flows through, made quickly: VGG has 130 million."""
    some = np.random.default_rng(0).normal(size=10007).astype(np.float32)

    def leaf(path, shape):
        if path.endswith("kernel"):
            return np.resize(some, shape.shape) * np.float32((2 / np.prod(shape.shape[:-1])) ** 0.5)
        return np.full(shape.shape, 0.1 if path.endswith(("bias", "mean")) else 1.0, np.float32)

    return tree.map_with_path(leaf, params), tree.map_with_path(leaf, model_state)


def prefix_of(name, train, freeze=""):
    model, params, model_state = network(name)
    mask = make_mask(FreezeSpec.parse(train, freeze), params, model.stages)
    return frozen_prefix(model, mask, params, model_state), mask


@pytest.mark.parametrize(
    ("name", "train", "freeze", "stage", "shape"),
    [
        ("efficientnet_lite0", "head", "", "head", (1280,)),
        ("efficientnet_lite0", "from:stage6", "", "stage6", (2, 2, 112)),
        ("efficientnet_lite0", "blocks/6/**/scale,head", "", "stage7", (1, 1, 192)),
        ("efficientnet_lite0", "full", "", None, None),
        ("efficientnet_lite0", "full", "stem", "stage1", (16, 16, 32)),
        ("efficientnet_lite0", "**/bn1/bias", "", None, None),
        ("vgg11_bn", "head", "", "head", (4096,)),
        ("vgg11_bn", "from:neck", "", "neck", (1, 1, 512)),
        ("resnet18", "stage3", "", "stage3", (4, 4, 128)),
    ],
)
def test_the_prefix_ends_before_the_first_stage_with_a_trained_leaf(name, train, freeze, stage, shape):
    prefix, _ = prefix_of(name, train, freeze)
    assert (prefix and prefix.stage, prefix and prefix.shape) == (stage, shape)


@pytest.mark.parametrize(("name", "train"), [("efficientnet_lite0", "from:stage6"), ("vgg11_bn", "head")])
def test_the_prefix_gives_what_the_training_network_gives_that_stage_dropout_and_batch_norm_included(name, train):
    prefix, mask = prefix_of(name, train)
    model = prefix.model
    params, model_state = filled(*network(name)[1:])

    @jax.jit
    def inside(image, params, model_state):
        image = normalize(image, model.preprocessing)
        outputs, new = model.apply(params, model_state, image, train=trains(mask), rng=jax.random.key(2))
        return outputs[model.input_of(prefix.stage)], new

    expected, new = inside(PIXELS, params, model_state)
    found = jax.jit(prefix.run(np.dtype(np.float32)))(params, model_state, PIXELS)
    assert found.shape == (4, *prefix.shape)
    assert float(np.abs(expected).max()) > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    before = list(model.stages)[: list(model.stages).index(prefix.stage)]
    for path, leaf in tree.flatten(new["batch_stats"]).items():
        if model.stage_of(path) in before:
            np.testing.assert_array_equal(leaf, tree.flatten(model_state["batch_stats"])[path], err_msg=path)


def test_a_batch_norm_that_trains_inside_the_prefix_is_refused():
    model, params, model_state = network("vgg11_bn")
    later = tuple(f"features/{index}" for index in (4, 5, 8, 9, 11, 12, 15, 16, 18, 19, 22, 23, 25, 26))
    stages = {"first": ("features/0", "features/1/bias"), "second": ("features/1/scale", *later, "classifier")}
    mask = make_mask(FreezeSpec.parse("features/1/scale"), params, stages)
    with pytest.raises(JaxftError, match="before 'second' cannot be kept: the BatchNorm 'features/1' trains, and .*1/bias'"):
        frozen_prefix(dataclasses.replace(model, stages=stages), mask, params, model_state)


def test_the_digest_changes_with_what_the_prefix_reads_and_with_nothing_else():
    prefix, _ = prefix_of("efficientnet_lite0", "from:stage6")
    params, model_state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), network("efficientnet_lite0")[1:])
    first = prefix.digest(params, model_state)

    def changed(kind, path):
        trees = {"params": dict(tree.flatten(params)), "batch_stats": dict(tree.flatten(model_state["batch_stats"]))}
        trees[kind][path] = trees[kind][path] + 1
        return prefix.digest(tree.unflatten(trees["params"]), {"batch_stats": tree.unflatten(trees["batch_stats"])}) != first

    assert not changed("params", "classifier/kernel")
    assert not changed("params", "blocks/5/0/conv_pw/kernel")
    assert not changed("batch_stats", "bn2/mean")
    assert changed("params", "conv_stem/kernel")
    assert changed("params", "blocks/4/0/conv_pw/kernel")
    assert changed("batch_stats", "blocks/4/0/bn1/var")
