"""FixMatch against torch's cross_entropy with a mask (scripts/make_fixmatch_fixtures.py), and inside a training step."""

from pathlib import Path

import jax
import jax.numpy as jnp
import nets
import numpy as np
import optax
import pytest

from jaxft import losses, tree
from jaxft.errors import JaxftError
from jaxft.losses import fixmatch, resolve, softmax_cross_entropy
from jaxft.metrics import classification_metrics, training_metrics
from jaxft.train import create_state, make_eval_step, make_train_step
from jaxft.tuning import FreezeSpec, make_mask

FOUND = dict(np.load(Path(__file__).parent / "fixtures" / "fixmatch.npz"))
ROWS = {"logits": 4, "weak": 12, "strong": 12}
#: The looks of the unlabelled pictures; the stand-in network of `_loss` tells by them which logits are asked for.
BATCH = {
    "image": jnp.zeros((4, 1, 1, 1)),
    "label": jnp.asarray(FOUND["label"], jnp.int32),
    "unlabelled_weak": jnp.full((12, 1, 1, 1), 1.0),
    "unlabelled_strong": jnp.full((12, 1, 1, 1), 2.0),
}
SET = {"threshold": 0.7, "weight": 1.5, "temperature": 2.0, "label_smoothing": 0.1}


def _loss(logits, **options):
    """The loss [4] of given logits."""

    def forward(image):
        return {"logits": jnp.where(image[:, 0, 0] == 1, logits["weak"], logits["strong"])}

    return fixmatch({"logits": logits["logits"]}, BATCH, forward=forward, **options)


@pytest.mark.parametrize(("name", "options"), [("paper", {}), ("all set", SET)])
def test_the_loss_and_its_gradients_are_torchs_cross_entropies_under_a_mask(name, options):
    logits = {key: jnp.asarray(FOUND[key], jnp.float32) for key in ROWS}
    np.testing.assert_allclose(_loss(logits, **options), FOUND[name], rtol=1e-5)
    grads = jax.grad(lambda logits: _loss(logits, **options).mean())(logits)
    for one in ("logits", "strong"):
        scale = np.abs(FOUND[f"{name}_of_{one}"]).max()
        np.testing.assert_allclose(grads[one], FOUND[f"{name}_of_{one}"], atol=1e-5 * scale, err_msg=one)
    np.testing.assert_array_equal(grads["weak"], 0)


def test_the_mean_over_a_batch_is_the_papers_formula_in_float64():
    # Equations 3 and 4: (1/B) sum of H(labels, p) + (1/U) sum of 1[max q >= threshold] H(argmax q, p of the strong look)
    def log_p(logits):
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    for threshold in (0.0, 0.6, 0.95, 1.0):
        q = np.exp(log_p(FOUND["weak"]))
        sure = q.max(-1) >= threshold
        labelled = -log_p(FOUND["logits"])[np.arange(4), FOUND["label"]]
        unlabelled = -log_p(FOUND["strong"])[np.arange(12), q.argmax(-1)] * sure
        expected = labelled.mean() + 0.5 * unlabelled.mean()
        logits = {key: jnp.asarray(FOUND[key], jnp.float32) for key in ROWS}
        np.testing.assert_allclose(_loss(logits, threshold=threshold, weight=0.5).mean(), expected, rtol=1e-5)


def test_no_unlabelled_picture_counts_where_the_network_is_sure_of_none_nor_in_an_evaluation():
    logits = {key: jnp.asarray(FOUND[key], jnp.float32) for key in ROWS}
    plain = softmax_cross_entropy({"logits": logits["logits"]}, BATCH)
    np.testing.assert_array_equal(_loss({**logits, "weak": jnp.zeros((12, 5))}), plain)
    np.testing.assert_array_equal(_loss(logits, weight=0.0), plain)
    np.testing.assert_array_equal(_loss(logits, train=False), plain)
    labelled = {key: BATCH[key] for key in ("image", "label")}
    outputs = {"logits": logits["logits"]}
    np.testing.assert_array_equal(fixmatch(outputs, labelled, forward=None), plain)
    np.testing.assert_array_equal(resolve("fixmatch", {"train": False})(outputs, labelled, forward=_loss), plain)


def test_what_the_network_rules_out_in_a_strong_look_makes_no_nan_where_it_is_not_sure():
    strong = jnp.asarray(FOUND["strong"], jnp.float32).at[:, 0].set(-jnp.inf)
    logits = {"logits": jnp.zeros((4, 5)), "weak": jnp.zeros((12, 5)), "strong": strong}
    np.testing.assert_allclose(_loss(logits), np.log(5), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.5}, "threshold is 1.5: it is a probability"),
        ({"threshold": -0.1}, "threshold is -0.1"),
        ({"weight": -1.0}, "weight is -1.0: it must be at least 0"),
        ({"temperature": 0.0}, "temperature is 0.0: it must be positive"),
    ],
)
def test_settings_out_of_their_range_are_clear_errors(options, message):
    with pytest.raises(JaxftError, match=message):
        _loss({key: jnp.zeros((rows, 5)) for key, rows in ROWS.items()}, **options)


def test_training_without_unlabelled_pictures_is_a_clear_error():
    batch = {key: BATCH[key] for key in ("image", "label", "unlabelled_weak")}
    with pytest.raises(JaxftError, match="the batch has no unlabelled_strong: set config.data.unlabelled"):
        fixmatch({"logits": jnp.zeros((4, 5))}, batch, forward=_loss)


PARAMS, STATE = nets.init()
METRICS = training_metrics(classification_metrics(nets.CLASSES))


def _batch(rows=4, ratio=3):
    weak, strong = nets.make_batch(1, rows * ratio), nets.make_batch(2, rows * ratio)
    return {**nets.make_batch(0, rows), "unlabelled_weak": weak["image"], "unlabelled_strong": strong["image"]}


def _step(accum_steps, loss, train="from:stage2"):
    mask = make_mask(FreezeSpec.parse(train), PARAMS, nets.STAGES)
    tx = optax.sgd(0.1)
    apply = nets.make_apply(dropout=0, batch_norm=False)
    step = make_train_step(apply, loss, tx, mask, metrics=METRICS, accum_steps=accum_steps)
    return jax.jit(step)(create_state(PARAMS, STATE, tx, mask, rng=jax.random.key(0)), _batch())[0], mask, apply


def test_a_step_follows_the_gradient_of_the_sum_and_microbatches_are_parts_of_both_kinds_of_pictures():
    loss = resolve("fixmatch", threshold=0.4)
    state, mask, apply = _step(1, loss)
    batch = _batch()

    def objective(trainable, frozen):
        def logits(image):
            return apply(tree.merge(trainable, frozen), STATE, image, train=False, rng=None)[0]["logits"]

        weak = jax.nn.softmax(logits(batch["unlabelled_weak"]))
        sure = jax.lax.stop_gradient((weak.max(-1) >= 0.4).astype(jnp.float32))
        assert 0 < sure.sum() < 12
        missed = optax.softmax_cross_entropy_with_integer_labels(logits(batch["unlabelled_strong"]), weak.argmax(-1))
        labelled = optax.softmax_cross_entropy_with_integer_labels(logits(batch["image"]), batch["label"])
        return labelled.mean() + (sure * missed).mean()

    trainable, frozen = tree.split(PARAMS, mask)
    moved = jax.tree.map(lambda leaf, grad: leaf - 0.1 * grad, trainable, jax.grad(objective)(trainable, frozen))
    for path, leaf in tree.flatten(tree.merge(moved, frozen)).items():
        np.testing.assert_allclose(tree.flatten(state.params)[path], leaf, rtol=1e-5, atol=1e-6, err_msg=path)
    parts, _, _ = _step(2, loss)
    for path, leaf in tree.flatten(parts.params).items():
        np.testing.assert_allclose(tree.flatten(state.params)[path], leaf, rtol=1e-5, atol=1e-6, err_msg=path)


def test_statistics_of_norms_are_those_of_the_labelled_pictures():
    mask = make_mask(FreezeSpec.parse("full"), PARAMS, nets.STAGES)
    tx, apply = optax.sgd(0.0), nets.make_apply(dropout=0)
    state = create_state(PARAMS, STATE, tx, mask, rng=jax.random.key(0))
    made = [
        make_train_step(apply, loss, tx, mask, metrics=METRICS)(state, batch)[0].model_state
        for loss, batch in ((resolve("fixmatch"), _batch()), (losses.softmax_cross_entropy, nets.make_batch(0, 4)))
    ]
    for ours, theirs in zip(*map(jax.tree.leaves, made), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_an_evaluation_is_of_the_labelled_pictures_alone():
    apply, batch = nets.make_apply(), nets.make_batch(0, 4)
    found = [
        make_eval_step(apply, loss, metrics=classification_metrics(nets.CLASSES))(PARAMS, STATE, batch)[1]["loss"]
        for loss in (resolve("fixmatch", {"train": False}), losses.softmax_cross_entropy)
    ]
    np.testing.assert_array_equal(*found)


def test_the_weak_look_costs_no_backward_pass():
    apply = nets.make_apply(dropout=0, batch_norm=False)

    def flops(loss, batch):
        mask = make_mask(FreezeSpec.parse("full"), PARAMS, nets.STAGES)
        tx = optax.sgd(0.1)
        step = make_train_step(apply, loss, tx, mask, metrics=METRICS)
        state = create_state(PARAMS, STATE, tx, mask, rng=jax.random.key(0))
        return jax.jit(step).lower(state, batch).compile().cost_analysis()["flops"]

    # There are three times as many strong looks as labelled rows, which cost a whole step each; with one of the weak looks it
    # would be three forward passes more.
    labelled, both = flops(losses.softmax_cross_entropy, nets.make_batch(0, 4)), flops(resolve("fixmatch"), _batch())
    image = _batch()["unlabelled_weak"]
    run = jax.jit(lambda image: apply(PARAMS, STATE, image, train=False, rng=None)[0]["logits"])
    forward = run.lower(image).compile().cost_analysis()["flops"]
    assert both - 4 * labelled < 1.3 * forward
