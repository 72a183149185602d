"""VGG-16, ResNet-50, EfficientNet-Lite0 and ViT-Ti/16 against torchvision and timm on the same weights: inference, stages, one
SGD step, twenty SGD steps."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import seeded
import seeded_networks as made
from compiled import USERS_GENERATOR

from jaxft.losses import softmax_cross_entropy
from jaxft.models import build
from jaxft.weights.rules import export

FIXTURES = Path(__file__).parent / "fixtures"
RATE, MOMENTUM, DECAY = 0.01, 0.9, 5e-4
TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Case:
    """Sizes as in scripts/make_model_fixtures.py. The training step of a deep network is compared in float64: see there."""

    convention: str
    size: int
    batch: int
    step_size: int
    step_batch: int
    dtype: str


CASES = {
    "vgg16": Case("torchvision", 224, 1, 64, 2, "float32"),
    "resnet50": Case("torchvision", 96, 2, 48, 4, "float64"),
    "efficientnet_lite0": Case("timm", 96, 2, 48, 4, "float64"),
    "vit_tiny_patch16_224": Case("timm", 64, 2, 64, 4, "float32"),
}


def torch_sgd(rate):
    return optax.chain(optax.add_decayed_weights(DECAY), optax.trace(MOMENTUM), optax.scale(-rate))


def _step(model, tx):
    """An SGD step in train mode: `(params, state, opt_state, images, labels) -> (params, state, opt_state, loss, grads)`."""

    def step(params, state, opt_state, images, labels):
        def mean_loss(params):
            outputs, new = model.apply(params, state, images, train=True, rng=jax.random.key(0))
            return softmax_cross_entropy(outputs, {"label": labels}).mean(), new

        (loss, new), grads = jax.value_and_grad(mean_loss, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), new, opt_state, loss, grads

    return step


#: Their train-mode batches take longest to compile; tiny members of their families are compared in test_zoo.py every time.
STEPS = [pytest.param(name, marks=pytest.mark.slow if name != "vit_tiny_patch16_224" else ()) for name in CASES]


@pytest.fixture(scope="module", params=CASES)
def case(request):
    name, case = request.param, CASES[request.param]
    return np.load(FIXTURES / f"{name}.npz"), case, made.seeded_network(name, case.convention, size=case.size)


def test_logits_and_every_stage_equal_the_original(case):
    fixture, case, (model, params, state, _) = case
    apply = jax.jit(lambda p, s, x: model.apply(p, s, x), compiler_options=USERS_GENERATOR)
    outputs, same = apply(params, state, seeded.images(1, case.batch, case.size))
    assert same.keys() == state.keys()
    expected = fixture["logits"]
    assert np.abs(outputs["logits"] - expected).max() <= TOLERANCE * np.abs(expected).max()
    stages = [key.split("|")[1] for key in fixture.files if key.startswith("stage|")]
    assert len(stages) >= 5
    for stage in stages:
        seeded.assert_digest(stage, outputs[stage], fixture[f"stage|{stage}"], TOLERANCE)


@pytest.mark.parametrize("case", STEPS, indirect=True)
def test_one_training_step_equals_the_original_in_gradients_parameters_and_statistics(case):
    fixture, case, (model, params, state, table) = case
    tx = torch_sgd(RATE)
    images, labels = seeded.images(1, case.step_batch, case.step_size), seeded.labels(1, case.step_batch, 10)
    with jax.enable_x64(case.dtype == "float64"):
        model = build(model.name, 10, dropout=0.0, dtype=case.dtype, size=case.step_size)
        params, state, images = jax.tree.map(lambda x: jnp.asarray(x, case.dtype), (params, state, images))
        step = jax.jit(_step(model, tx), donate_argnums=(0, 1, 2), compiler_options=USERS_GENERATOR)
        after, new, _, loss, grads = step(params, state, tx.init(params), images, labels)
        assert {leaf.dtype for leaf in jax.tree.leaves((after, new, grads))} == {jnp.dtype(case.dtype)}
        grads, after = export({"params": grads}, table), export({"params": after, **new}, table)
    np.testing.assert_allclose(float(loss), fixture["loss"], rtol=TOLERANCE)
    names = {part: {key.split("|")[1] for key in fixture.files if key.startswith(part + "|")} for part in ("grad", "after")}
    assert names["grad"] == grads.keys()
    assert names["after"] == {key for key in after if not key.endswith("num_batches_tracked")}
    largest = max(fixture[f"grad|{name}"][0] for name in names["grad"])
    for name in names["grad"]:
        if fixture[f"grad|{name}"][0] > 1e-12 * largest:
            seeded.assert_digest(name, grads[name], fixture[f"grad|{name}"], TOLERANCE)
        else:  # a bias whose sum the next BatchNorm takes off again: zero but for rounding
            assert np.linalg.norm(grads[name]) < 1e-12 * largest, name
    for name in names["after"]:
        seeded.assert_digest(name, after[name], fixture[f"after|{name}"], TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg16_bn", "resnet18"])
def test_twenty_steps_of_sgd_give_the_originals_loss_curve(name):
    fixture = np.load(FIXTURES / f"{name}_curve.npz")
    model, params, state, _ = made.seeded_network(name, "torchvision", seed=2, size=32, make=seeded.trained_state_dict)
    tx = torch_sgd(float(fixture["rate"]))
    step = jax.jit(_step(model, tx), donate_argnums=(0, 1, 2), compiler_options=USERS_GENERATOR)
    params, state = jax.tree.map(jnp.array, (params, state))
    opt_state, found = tx.init(params), []
    for number in range(20):
        images, labels = seeded.images(2, 32, 32, number % 4), seeded.labels(2, 32, 10, number % 4)
        params, state, opt_state, loss, _ = step(params, state, opt_state, images, labels)
        found.append(float(loss))
    assert found[-1] < 0.85 * found[0]
    np.testing.assert_allclose(found, fixture["losses"], rtol=1e-3)
