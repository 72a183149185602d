"""Augmentation inside the training step: what is learned from, on one device and on eight, and what devices send for it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxft.augment import parse
from jaxft.explain.collectives import collectives
from jaxft.losses import softmax_cross_entropy
from jaxft.metrics import classification_metrics, to_floats, training_metrics
from jaxft.parallel import batch_sharding, make_mesh, replicated
from jaxft.train import create_state, make_train_step

pytestmark = pytest.mark.usefixtures("quick_compiles")

SIZE, CLASSES, BATCH = 12, 4, 16
METRICS = training_metrics(classification_metrics(CLASSES))
LOCAL = (
    "random_crop(margin=2), random_flip, random_rotation(15), random_color, random_blur((0.1, 1.0)), random_equalize, "
    "random_noise, random_erasing(0.5), random_label_flip"
)


def apply(params, model_state, image, *, train, rng):
    """A body that stays as it is and a head that is trained."""
    pixels = jnp.asarray(image, jnp.float32).reshape(len(image), -1) / 255
    return {"logits": jnp.tanh(pixels @ params["body"]) @ params["head"]}, model_state


def begin():
    rng = np.random.default_rng(0)
    params = {
        "body": rng.normal(size=(SIZE * SIZE * 3, 8)).astype(np.float32) / 20,
        "head": rng.normal(size=(8, CLASSES)).astype(np.float32),
    }
    mask, tx = {"body": False, "head": True}, optax.sgd(0.1)
    return create_state(params, {}, tx, mask, rng=jax.random.key(0)), mask, tx


def batch_of(side):
    rng = np.random.default_rng(1)
    return {
        "image": rng.integers(0, 256, (BATCH, side, side, 3), np.uint8),
        "label": (np.arange(BATCH) % CLASSES).astype(np.int32),
        "mask": np.ones(BATCH, np.float32),
        "index": np.arange(BATCH, dtype=np.int32),
        "shown": np.zeros(BATCH, np.int32),
    }


def stepped(text, devices):
    """The state after a step, its figures, and what is sent."""
    recipe = parse(text)
    state, mask, tx = begin()
    prepare = functools.partial(recipe.batch, seed=0, size=SIZE, classes=CLASSES)
    step = make_train_step(apply, softmax_cross_entropy, tx, mask, metrics=METRICS, augment=prepare)
    mesh = make_mesh(f"{devices}x1x1", devices=jax.devices()[:devices])
    state = jax.device_put(state, replicated(mesh))
    batch = jax.device_put(batch_of(recipe.window.side(SIZE)), batch_sharding(mesh))
    compiled = jax.jit(step).lower(state, batch).compile()
    state, metrics = compiled(state, batch)
    return state, to_floats(metrics), {found.kind: found.count for found in collectives(compiled.as_text())}


@pytest.mark.parametrize(
    ("text", "sent"), [(LOCAL, {"all-reduce"}), ("random_flip, mixup, cutmix", {"all-reduce", "collective-permute"})]
)
def test_a_step_on_eight_devices_is_the_step_on_one_and_sends_no_more_than_it_must(text, sent):
    one, figures, nothing = stepped(text, 1)
    many, same, kinds = stepped(text, 8)
    assert nothing == {}
    assert set(kinds) == sent
    assert kinds["all-reduce"] == 1
    np.testing.assert_allclose(many.params["head"], one.params["head"], atol=2e-4)
    assert same["loss"] == pytest.approx(figures["loss"], abs=2e-3)


def test_the_step_learns_from_what_the_list_makes_of_the_batch():
    text = "random_flip, random_color, mixup(1.0)"
    after, figures, _ = stepped(text, 1)
    state, _, _ = begin()
    batch = parse(text).batch(batch_of(SIZE), seed=0, size=SIZE, classes=CLASSES)
    assert batch["label"].shape == (BATCH, CLASSES)

    def loss(head):
        outputs, _ = apply({**state.params, "head": head}, {}, batch["image"], train=True, rng=None)
        return optax.softmax_cross_entropy(outputs["logits"], batch["label"]).mean()

    value, slope = jax.value_and_grad(loss)(state.params["head"])
    assert figures["loss"] == pytest.approx(float(value), rel=1e-3)
    np.testing.assert_allclose(after.params["head"], state.params["head"] - 0.1 * slope, atol=1e-4)
