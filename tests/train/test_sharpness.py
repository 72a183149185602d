"""Sharpness-aware minimisation: the authors' formulas in float64, with everything else a step does."""

import jax
import jax.numpy as jnp
import nets
import numpy as np
import optax
import pytest

from jaxft import losses, tree
from jaxft.errors import JaxftError
from jaxft.metrics import classification_metrics, to_floats, training_metrics
from jaxft.parallel import make_mesh, pmap_step, put_batch, replicate
from jaxft.train import create_state, make_train_step
from jaxft.train.sharpness import perturbed
from jaxft.tuning import FreezeSpec, make_mask, trains

pytestmark = pytest.mark.usefixtures("quick_compiles")

METRICS = training_metrics(classification_metrics(nets.CLASSES))
PARAMS, STATE = nets.init()
LR, RHO = 0.1, 0.3


def _step(train="full", *, apply=None, tx=None, **options):
    mask = make_mask(FreezeSpec.parse(train), PARAMS, nets.STAGES)
    tx = tx or optax.sgd(LR)
    step = make_train_step(apply or nets.make_apply(), losses.softmax_cross_entropy, tx, mask, metrics=METRICS, **options)
    return mask, tx, step


def _mlp(dtype):
    rng = np.random.default_rng(0)
    return {
        "fc1": {"kernel": rng.normal(size=(5, 7)).astype(dtype), "bias": rng.normal(size=7).astype(dtype)},
        "head": {"kernel": rng.normal(size=(7, 4)).astype(dtype), "bias": rng.normal(size=4).astype(dtype)},
    }


def _mlp_apply(params, model_state, image, *, train, rng):
    hidden = jnp.maximum(image @ params["fc1"]["kernel"] + params["fc1"]["bias"], 0)
    return {"logits": hidden @ params["head"]["kernel"] + params["head"]["bias"]}, model_state


def _gradient_by_hand(params, image, label):
    """Of the mean cross-entropy, in NumPy."""
    before = image @ params["fc1"]["kernel"] + params["fc1"]["bias"]
    hidden = np.maximum(before, 0)
    logits = hidden @ params["head"]["kernel"] + params["head"]["bias"]
    share = np.exp(logits - logits.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    of_logits = (share - np.eye(4)[label]) / len(label)
    of_before = (of_logits @ params["head"]["kernel"].T) * (before > 0)
    return {
        "fc1": {"kernel": image.T @ of_before, "bias": of_before.sum(0)},
        "head": {"kernel": hidden.T @ of_logits, "bias": of_logits.sum(0)},
    }


def _up_by_hand(params, grads, adaptive):
    """Foret et al., equation 2; Kwon et al., with the authors' T = |w| + 0.01 for weights and 1 for biases."""
    flat, slope = tree.flatten(params), tree.flatten(grads)
    scale = {path: np.abs(leaf) + 0.01 if adaptive and not path.endswith("bias") else 1.0 for path, leaf in flat.items()}
    length = np.sqrt(sum(((scale[path] * leaf) ** 2).sum() for path, leaf in slope.items()))
    return tree.unflatten({path: leaf + RHO * scale[path] ** 2 * slope[path] / length for path, leaf in flat.items()})


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("accum_steps", [1, 2])
def test_a_step_is_the_authors_formula_in_float64(adaptive, accum_steps):
    rng = np.random.default_rng(1)
    image, label = rng.normal(size=(6, 5)), rng.integers(0, 4, 6)
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, _mlp(np.float64))
        mask, tx = jax.tree.map(lambda _: True, params), optax.sgd(LR)
        state = create_state(params, {}, tx, mask, rng=jax.random.key(0))
        step = make_train_step(
            _mlp_apply, losses.softmax_cross_entropy, tx, mask,
            metrics=METRICS, sam_rho=RHO, sam_adaptive=adaptive, accum_steps=accum_steps,
        )  # fmt: skip
        batch = {"image": jnp.asarray(image), "label": jnp.asarray(label, jnp.int32), "mask": jnp.ones(6, jnp.float32)}
        expected = _mlp(np.float64)
        for _ in range(3):
            state, metrics = step(state, batch)
            first = expected
            up = _up_by_hand(expected, _gradient_by_hand(expected, image, label), adaptive)
            grads = _gradient_by_hand(up, image, label)
            expected = jax.tree.map(lambda leaf, grad: leaf - LR * grad, expected, grads)
        for path, leaf in tree.flatten(state.params).items():
            assert leaf.dtype == np.float64
            np.testing.assert_allclose(leaf, tree.flatten(expected)[path], rtol=2e-6, err_msg=path)
        # What is reported: the loss of the first pass, the norm of the gradient that trains.
        logits = _mlp_apply(first, {}, image, train=True, rng=None)[0]["logits"]
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()
        np.testing.assert_allclose(to_floats(metrics)["loss"], loss, rtol=1e-6)
        np.testing.assert_allclose(to_floats(metrics)["grad_norm"], optax.global_norm(grads), rtol=1e-6)


def test_it_is_optax_contrib_sam_on_the_trained_leaves_and_frozen_ones_stay_bit_identical():
    mask, tx, step = _step("head,stage2", sam_rho=RHO)
    state = create_state(PARAMS, STATE, tx, mask, rng=jax.random.key(3))
    jitted = jax.jit(step)
    sam = optax.contrib.sam(
        optax.sgd(LR), optax.chain(optax.contrib.normalize(), optax.sgd(RHO)), sync_period=2, opaque_mode=True
    )
    apply, on = nets.make_apply(), trains(mask)
    trainable, frozen = tree.split(PARAMS, mask)
    opt_state, model_state = sam.init(trainable), STATE

    @jax.jit
    def plain(trainable, model_state, opt_state, batch, number):
        rng = jax.random.fold_in(jax.random.key(3), number)

        def loss(trainable):
            outputs, new = apply(tree.merge(trainable, frozen), model_state, batch["image"], train=on, rng=rng)
            return losses.softmax_cross_entropy(outputs, batch).mean(), new

        grads, new = jax.grad(loss, has_aux=True)(trainable)
        updates, opt_state = sam.update(grads, opt_state, trainable, grad_fn=lambda up, _: jax.grad(loss, has_aux=True)(up)[0])
        return optax.apply_updates(trainable, updates), new, opt_state

    for number in range(3):
        batch = nets.make_batch(number)
        state, _ = jitted(state, batch)
        trainable, model_state, opt_state = plain(trainable, model_state, opt_state, batch, number)
    found, kept = tree.split(state.params, mask)
    for path, leaf in tree.flatten(found).items():
        np.testing.assert_allclose(leaf, tree.flatten(trainable)[path], rtol=1e-4, atol=1e-5, err_msg=path)
        assert not np.array_equal(leaf, tree.flatten(PARAMS)[path])
    for path, leaf in tree.flatten(kept).items():
        np.testing.assert_array_equal(leaf, tree.flatten(PARAMS)[path])
    for path, leaf in tree.flatten(state.model_state).items():  # of the first pass only
        np.testing.assert_allclose(leaf, tree.flatten(model_state)[path], rtol=1e-4, atol=1e-5, err_msg=path)
    for path, leaf in tree.flatten(state.model_state["batch_stats"]).items():
        if not on(path.rpartition("/")[0]):
            np.testing.assert_array_equal(leaf, tree.flatten(STATE["batch_stats"])[path])


@pytest.mark.parametrize("adaptive", [False, True])
def test_eight_devices_and_pmap_give_the_parameters_of_one(adaptive):
    mask, tx, step = _step(apply=nets.make_apply(dropout=0), sam_rho=RHO, sam_adaptive=adaptive)
    state = create_state(PARAMS, STATE, tx, mask, rng=jax.random.key(2))
    results = []
    for devices in (jax.devices()[:1], jax.devices()):
        mesh = make_mesh(devices=devices)
        placed, jitted = replicate(state, mesh), jax.jit(step)
        for number in range(3):
            placed, _ = jitted(placed, put_batch({k: np.asarray(v) for k, v in nets.make_batch(number, 16).items()}, mesh))
        results.append(placed)
    # BatchNorm of this network knows no axis, so each device's own statistics would differ: without them, pmap is the same.
    for path, leaf in tree.flatten(results[0].params).items():
        np.testing.assert_allclose(leaf, tree.flatten(results[1].params)[path], atol=1e-5, err_msg=path)
    apply = nets.make_apply(dropout=0, batch_norm=False)
    _, _, alone = _step(apply=apply, sam_rho=RHO, sam_adaptive=adaptive)
    _, _, mapped = _step(apply=apply, sam_rho=RHO, sam_adaptive=adaptive, axis_name="data")
    batch = nets.make_batch(0, 16)
    one, _ = jax.jit(alone)(state, batch)
    eight, _ = pmap_step(mapped, axis_name="data")(state, batch)
    for path, leaf in tree.flatten(one.params).items():
        np.testing.assert_allclose(leaf, tree.flatten(eight.params)[path], atol=1e-5, err_msg=path)


def test_a_second_pass_that_is_not_finite_is_seen_and_skipped():
    def cliff(outputs, batch, *, forward, params):
        """Finite at the parameters, infinite where SAM looks next."""
        moved = jnp.abs(params["head"]["bias"] - PARAMS["head"]["bias"]).max()
        return losses.softmax_cross_entropy(outputs, batch) * jnp.where(moved > 1e-4, jnp.inf, 1.0)

    mask = make_mask(FreezeSpec.parse("head"), PARAMS, nets.STAGES)
    tx = optax.sgd(LR)
    state = create_state(PARAMS, STATE, tx, mask, rng=jax.random.key(0))
    step = make_train_step(nets.make_apply(), cliff, tx, mask, metrics=METRICS, sam_rho=RHO, skip_nonfinite=True)
    after, metrics = jax.jit(step)(state, nets.make_batch(0))
    assert (int(after.step), int(metrics.nonfinite.steps)) == (1, 1)
    for path, leaf in tree.flatten(after.params).items():
        np.testing.assert_array_equal(leaf, tree.flatten(PARAMS)[path])
    plain = make_train_step(nets.make_apply(), cliff, tx, mask, metrics=METRICS, skip_nonfinite=True)
    assert int(jax.jit(plain)(state, nets.make_batch(0))[1].nonfinite.steps) == 0


def test_a_gradient_of_zero_moves_nothing_and_makes_no_nan():
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    for adaptive in (False, True):
        for path, leaf in tree.flatten(perturbed(PARAMS, zero, RHO, adaptive=adaptive)).items():
            np.testing.assert_array_equal(leaf, tree.flatten(PARAMS)[path])


def test_a_radius_that_is_none_is_a_clear_error():
    with pytest.raises(JaxftError, match="sam_rho is 0.0: it must be positive, e.g. 0.05"):
        _step(sam_rho=0.0)
    with pytest.raises(JaxftError, match="sam_adaptive needs sam_rho"):
        _step(sam_adaptive=True)
