"""VGG-16, ResNet-50 and EfficientNet-Lite0 against torchvision and timm on the same weights: inference, stages, one SGD step,
twenty SGD steps."""

import functools
from pathlib import Path

import seeded_networks as made
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import seeded

from jaxft.losses import softmax_cross_entropy
from jaxft.weights.rules import export

FIXTURES = Path(__file__).parent / "fixtures"
RATE, MOMENTUM, DECAY = 0.01, 0.9, 5e-4
TOLERANCE = 1e-4
CASES = {
    "vgg16": ("vgg16", "torchvision", 64, 2),
    "vgg16_224": ("vgg16", "torchvision", 224, 1),
    "resnet50": ("resnet50", "torchvision", 96, 4),
    "efficientnet_lite0": ("efficientnet_lite0", "timm", 64, 8),
}


def torch_sgd(rate):
    return optax.chain(optax.add_decayed_weights(DECAY), optax.trace(MOMENTUM), optax.scale(-rate))


@functools.lru_cache(maxsize=1)
def _computed(case):
    """Everything the tests of one network look at, from one compilation each."""
    name, convention, size, batch = CASES[case]
    model, params, state, table = made.seeded_network(name, convention, size=size)
    images, labels = jnp.asarray(seeded.images(1, batch, size)), jnp.asarray(seeded.labels(1, batch, 10))
    outputs, same = jax.jit(lambda p, s, x: model.apply(p, s, x))(params, state, images)
    assert same.keys() == state.keys()

    @jax.jit
    def step(params, state):
        def mean_loss(params):
            outputs, new = model.apply(params, state, images, train=True, rng=jax.random.key(0))
            return softmax_cross_entropy(outputs, {"label": labels}).mean(), new

        (loss, new), grads = jax.value_and_grad(mean_loss, has_aux=True)(params)
        tx = torch_sgd(RATE)
        updates, _ = tx.update(grads, tx.init(params), params)
        return loss, grads, optax.apply_updates(params, updates), new

    loss, grads, after, new = step(params, state)
    grads = export({"params": grads}, table)
    after = export({"params": after, **new}, table)
    return outputs, float(loss), grads, after


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return np.load(FIXTURES / f"{request.param}.npz"), _computed(request.param)


def test_logits_equal_the_original(case):
    fixture, (outputs, *_) = case
    expected = fixture["logits"]
    assert np.abs(outputs["logits"] - expected).max() <= TOLERANCE * np.abs(expected).max()


def test_every_stage_equals_the_original(case):
    fixture, (outputs, *_) = case
    stages = [key.split("|")[1] for key in fixture.files if key.startswith("stage|")]
    assert len(stages) >= 5
    for stage in stages:
        seeded.assert_digest(stage, outputs[stage], fixture[f"stage|{stage}"], TOLERANCE)


def test_one_training_step_equals_the_original_in_gradients_parameters_and_statistics(case):
    fixture, (_, loss, grads, after) = case
    np.testing.assert_allclose(loss, fixture["loss"], rtol=TOLERANCE)
    names = {part: {key.split("|")[1] for key in fixture.files if key.startswith(part + "|")} for part in ("grad", "after")}
    assert names["grad"] == grads.keys()
    assert names["after"] == {key for key in after if not key.endswith("num_batches_tracked")}
    for name in names["grad"]:
        # A bias in front of a BatchNorm has gradient zero but for rounding: nothing to compare there.
        if fixture[f"grad|{name}"][0] > 1e-5:
            seeded.assert_digest(name, grads[name], fixture[f"grad|{name}"], TOLERANCE)
    for name in names["after"]:
        seeded.assert_digest(name, after[name], fixture[f"after|{name}"], TOLERANCE)


@pytest.mark.parametrize("name", ["vgg16_bn", "resnet18"])
def test_twenty_steps_of_sgd_give_the_originals_loss_curve(name):
    expected = np.load(FIXTURES / f"{name}_curve.npz")["losses"]
    model, params, state, _ = made.seeded_network(name, "torchvision", seed=2, size=32, make=seeded.calm_state_dict)
    tx = torch_sgd(RATE)

    @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
    def step(params, state, opt_state, images, labels):
        def mean_loss(params):
            outputs, new = model.apply(params, state, images, train=True, rng=jax.random.key(0))
            return softmax_cross_entropy(outputs, {"label": labels}).mean(), new

        (loss, new), grads = jax.value_and_grad(mean_loss, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), new, opt_state, loss

    params, state = jax.tree.map(jnp.array, (params, state))
    opt_state = tx.init(params)
    found = []
    for number in range(len(expected)):
        images, labels = seeded.images(2, 32, 32, number % 4), seeded.labels(2, 32, 10, number % 4)
        params, state, opt_state, loss = step(params, state, opt_state, images, labels)
        found.append(float(loss))
    assert found[-1] < 0.95 * found[0]
    np.testing.assert_allclose(found, expected, rtol=1e-3)
