"""Losses against formulas in NumPy and float64, written down anew, and against scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from jaxft import losses
from jaxft.errors import JaxftError

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(7, 5)) * 3
LABELS = RNG.integers(0, 5, 7)
BATCH = {"label": jnp.asarray(LABELS, jnp.int32)}
OUTPUTS = {"logits": jnp.asarray(LOGITS, jnp.float32)}
SOFT = RNG.dirichlet(np.ones(5), 7)
MANY = (RNG.random((7, 5)) > 0.5).astype(np.float64)
COUNTS = np.array([50.0, 3, 1, 200, 6])
WEIGHTS = (0.5, 2.0, 1.0, 0.0, 3.0)


def _log_p(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_cross_entropy_equals_scikit_learn():
    found = losses.softmax_cross_entropy(OUTPUTS, BATCH)
    assert found.shape == (7,)
    np.testing.assert_allclose(found.mean(), log_loss(LABELS, np.exp(_log_p(LOGITS)), labels=range(5)), rtol=1e-5)


def test_label_smoothing_is_torchs():
    # torch: (1 - e) * nll + e * mean over classes of -log p
    expected = 0.9 * -_log_p(LOGITS)[np.arange(7), LABELS] + 0.1 * -_log_p(LOGITS).mean(-1)
    np.testing.assert_allclose(losses.softmax_cross_entropy(OUTPUTS, BATCH, label_smoothing=0.1), expected, rtol=1e-5)


def test_soft_labels_of_one_hot_equal_hard_ones():
    soft = {"label": jax.nn.one_hot(BATCH["label"], 5)}
    np.testing.assert_allclose(
        losses.softmax_cross_entropy(OUTPUTS, soft), losses.softmax_cross_entropy(OUTPUTS, BATCH), rtol=1e-6
    )


def test_binary_cross_entropy_is_stable_and_equals_float64():
    logits = np.concatenate([LOGITS, [[1000.0, -1000, 0, 50, -50]]])
    labels = (RNG.random(logits.shape) > 0.5).astype(np.float64)
    labels[-1] = [1, 0, 1, 1, 0]
    expected = (np.maximum(logits, 0) - logits * labels + np.log1p(np.exp(-np.abs(logits)))).mean(-1)
    found = losses.binary_cross_entropy(
        {"logits": jnp.asarray(logits, jnp.float32)}, {"label": jnp.asarray(labels, jnp.float32)}
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_focal_loss_without_focus_is_cross_entropy():
    np.testing.assert_allclose(losses.focal(OUTPUTS, BATCH, gamma=0.0), losses.softmax_cross_entropy(OUTPUTS, BATCH), rtol=1e-5)
    p = np.exp(_log_p(LOGITS))[np.arange(7), LABELS]
    np.testing.assert_allclose(losses.focal(OUTPUTS, BATCH, gamma=2.0, alpha=0.5), -0.5 * (1 - p) ** 2 * np.log(p), rtol=1e-4)


def test_sigmoid_focal_loss_equals_its_formula():
    labels = (RNG.random((7, 5)) > 0.5).astype(np.float64)
    p = 1 / (1 + np.exp(-LOGITS))
    p_true = np.where(labels > 0, p, 1 - p)
    weight = np.where(labels > 0, 0.25, 0.75)
    found = losses.sigmoid_focal(OUTPUTS, {"label": jnp.asarray(labels, jnp.float32)})
    np.testing.assert_allclose(found, (-weight * (1 - p_true) ** 2 * np.log(p_true)).mean(-1), rtol=1e-4)


def test_mean_squared_error():
    label = jnp.asarray(RNG.normal(size=7), jnp.float32)
    found = losses.mean_squared_error({"logits": OUTPUTS["logits"][:, :1]}, {"label": label})
    np.testing.assert_allclose(found, (LOGITS[:, 0] - np.asarray(label)) ** 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sofmax_cross_entropy", {}, "did you mean 'softmax_cross_entropy'"),
        ("no_such_module:loss", {}, "cannot import 'no_such_module'"),
        ("jaxft.losses:fokal", {}, "has no 'fokal' .did you mean 'focal'"),
        ("focal", {"gama": 1}, "takes no option 'gama' .did you mean 'gamma'"),
        ("jaxft.losses:SCHEMES", {}, "is not a function"),
    ],
)
def test_a_loss_that_is_not_there_is_a_clear_error(name, options, message):
    with pytest.raises(JaxftError, match=message):
        losses.resolve(name, **options)


def test_options_are_bound_and_functions_pass_through():
    bound = losses.resolve("jaxft.losses:focal", gamma=0.0)
    np.testing.assert_allclose(bound(OUTPUTS, BATCH), losses.softmax_cross_entropy(OUTPUTS, BATCH), rtol=1e-5)
    assert losses.resolve(losses.focal) is losses.focal


def _nll(logits, label, weights=(1.0,) * 5, smoothing=0.0):
    """torch's F.cross_entropy(logits, label, weights, reduction="none", label_smoothing=smoothing) of classes."""
    log_p, weights = _log_p(logits), np.asarray(weights, np.float64)
    own = -weights[label] * log_p[np.arange(len(label)), label]
    return (1 - smoothing) * own + smoothing / 5 * -(weights * log_p).sum(-1)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_class_weights_are_torchs_also_with_smoothing(smoothing):
    found = losses.softmax_cross_entropy(OUTPUTS, BATCH, class_weights=WEIGHTS, label_smoothing=smoothing)
    np.testing.assert_allclose(found, _nll(LOGITS, LABELS, WEIGHTS, smoothing), rtol=1e-5)


def test_class_weights_of_soft_labels_are_torchs():
    # torch: -sum over classes of weight * share * log p
    found = losses.softmax_cross_entropy(OUTPUTS, {"label": jnp.asarray(SOFT, jnp.float32)}, class_weights=WEIGHTS)
    np.testing.assert_allclose(found, -(np.array(WEIGHTS) * SOFT * _log_p(LOGITS)).sum(-1), rtol=1e-5)


def test_balanced_weights_are_scikit_learns():
    labels = np.repeat(np.arange(5), COUNTS.astype(int))
    expected = compute_class_weight("balanced", classes=np.arange(5), y=labels)
    np.testing.assert_allclose(losses.class_weights("balanced", 5, COUNTS), expected, rtol=1e-6)
    found = losses.softmax_cross_entropy(OUTPUTS, BATCH, class_weights="balanced", class_counts=COUNTS)
    np.testing.assert_allclose(found, _nll(LOGITS, LABELS, expected), rtol=1e-5)


@pytest.mark.parametrize(
    ("scheme", "beta", "formula"),
    [
        ("sqrt", 0.9, lambda n: 1 / np.sqrt(n)),
        ("effective", 0.9, lambda n: (1 - 0.9) / (1 - 0.9**n)),
        ("effective", 0.999, lambda n: (1 - 0.999) / (1 - 0.999**n)),
        ("effective", 0.0, np.ones_like),
    ],
)
def test_the_other_schemes_follow_their_formulas_with_mean_one_over_the_examples(scheme, beta, formula):
    found = losses.class_weights(scheme, 5, COUNTS, beta=beta)
    np.testing.assert_allclose(found / found[0], formula(COUNTS) / formula(COUNTS)[0], rtol=1e-5)
    np.testing.assert_allclose((found * COUNTS).sum() / COUNTS.sum(), 1, rtol=1e-6)


def test_effective_weights_near_one_are_the_balanced_ones():
    found = losses.class_weights("effective", 5, COUNTS, beta=1 - 1e-9)
    np.testing.assert_allclose(found, losses.class_weights("balanced", 5, COUNTS), rtol=1e-5)


@pytest.mark.parametrize("scheme", losses.SCHEMES)
def test_classes_without_examples_weigh_nothing_and_change_nothing_for_the_others(scheme):
    found = losses.class_weights(scheme, 4, [10, 0, 2, 0])
    np.testing.assert_array_equal(found[[1, 3]], 0)
    np.testing.assert_array_equal(found[[0, 2]], losses.class_weights(scheme, 2, [10, 2]))


def test_logits_are_adjusted_by_the_prior_in_training_and_not_in_evaluations():
    adjusted = LOGITS + 1.5 * np.log(COUNTS / COUNTS.sum())
    found = losses.logit_adjusted(OUTPUTS, BATCH, tau=1.5, class_counts=COUNTS, label_smoothing=0.1)
    np.testing.assert_allclose(found, _nll(adjusted, LABELS, smoothing=0.1), rtol=1e-5)
    judged = losses.logit_adjusted(OUTPUTS, BATCH, tau=1.5, class_counts=COUNTS, train=False)
    np.testing.assert_array_equal(judged, losses.softmax_cross_entropy(OUTPUTS, BATCH))
    # The paper's form: log(1 + sum over y' of (prior' / prior)^tau * exp(logit' - logit))
    margin = (COUNTS / COUNTS[LABELS][:, None]) * np.exp(LOGITS - LOGITS[np.arange(7), LABELS][:, None])
    np.testing.assert_allclose(losses.logit_adjusted(OUTPUTS, BATCH, class_counts=COUNTS), np.log(margin.sum(-1)), rtol=1e-5)


def test_a_class_without_examples_is_adjusted_as_if_it_had_one():
    found = losses.logit_adjusted(OUTPUTS, BATCH, class_counts=[0, 3, 1, 200, 6])
    np.testing.assert_array_equal(found, losses.logit_adjusted(OUTPUTS, BATCH, class_counts=[1, 3, 1, 200, 6]))
    assert np.isfinite(found).all()


def _bce(logits, labels, positive=1.0, weights=1.0):
    p = 1 / (1 + np.exp(-logits))
    return (-np.asarray(weights) * (np.asarray(positive) * labels * np.log(p) + (1 - labels) * np.log(1 - p))).mean(-1)


@pytest.mark.parametrize("pos_weight", [3.0, (0.5, 2.0, 1.0, 0.0, 7.0)])
def test_weights_of_labels_and_of_positives_are_torchs(pos_weight):
    batch = {"label": jnp.asarray(MANY, jnp.float32)}
    found = losses.binary_cross_entropy(OUTPUTS, batch, pos_weight=pos_weight, class_weights=WEIGHTS)
    np.testing.assert_allclose(found, _bce(LOGITS, MANY, pos_weight, WEIGHTS), rtol=1e-5)


def test_balanced_positives_weigh_as_much_as_the_negatives_of_their_label():
    batch = {"label": jnp.asarray(MANY, jnp.float32)}
    options = {"pos_weight": "balanced", "class_counts": [50, 0, 1, 200, 100], "num_examples": 200}
    found = losses.binary_cross_entropy(OUTPUTS, batch, **options)
    np.testing.assert_allclose(found, _bce(LOGITS, MANY, [3, 1, 199, 1, 1]), rtol=1e-5)
    plain = losses.binary_cross_entropy(OUTPUTS, batch)
    np.testing.assert_array_equal(losses.binary_cross_entropy(OUTPUTS, batch, **options, train=False), plain)


def test_weighted_positives_are_stable():
    outputs, batch = {"logits": jnp.array([[1000.0, -1000.0]])}, {"label": jnp.array([[0.0, 1.0]])}
    assert losses.binary_cross_entropy(outputs, batch, pos_weight=3.0) == (1000 + 3000) / 2


def _focal(logits, target, gamma, weights=1.0):
    p = np.exp(_log_p(logits))
    return -(np.asarray(weights) * target * (1 - p) ** gamma * np.log(p)).sum(-1)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("alpha", [None, 0.25, (0.1, 0.2, 0.3, 0.4, 2.0)])
def test_focal_loss_of_soft_and_hard_labels_equals_its_formula(gamma, alpha):
    weights = 1.0 if alpha is None else alpha
    for label, target in ((BATCH["label"], np.eye(5)[LABELS]), (jnp.asarray(SOFT, jnp.float32), SOFT)):
        found = losses.focal(OUTPUTS, {"label": label}, gamma=gamma, alpha=alpha)
        np.testing.assert_allclose(found, _focal(LOGITS, target, gamma, weights), rtol=2e-4, atol=1e-7)
        both = losses.focal(OUTPUTS, {"label": label}, gamma=gamma, alpha=alpha, class_weights="balanced", class_counts=COUNTS)
        scale = np.asarray(weights) * COUNTS.sum() / (5 * COUNTS)
        np.testing.assert_allclose(both, _focal(LOGITS, target, gamma, scale), rtol=2e-4, atol=1e-7)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_and_its_gradient_are_finite_where_a_probability_is_one_or_a_class_is_ruled_out(gamma):
    logits = jnp.array([[200.0, 0, 0], [0.0, 200, 0], [1.0, -jnp.inf, 2]])
    for label in (jnp.array([0, 0, 2]), jnp.array([[1.0, 0, 0], [0.9, 0.1, 0], [0.5, 0, 0.5]])):
        value, gradient = jax.value_and_grad(lambda x, y: losses.focal({"logits": x}, {"label": y}, gamma=gamma).sum())(
            logits, label
        )
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("loss", "label", "formula"),
    [
        (
            lambda o, b: losses.softmax_cross_entropy(o, b, class_weights="sqrt", class_counts=COUNTS, label_smoothing=0.1),
            LABELS,
            lambda x: _nll(x, LABELS, COUNTS**-0.5 * COUNTS.sum() / np.sqrt(COUNTS).sum(), 0.1),
        ),
        (lambda o, b: losses.logit_adjusted(o, b, class_counts=COUNTS), LABELS, lambda x: _nll(x + np.log(COUNTS), LABELS)),
        (lambda o, b: losses.focal(o, b, gamma=1.5, alpha=WEIGHTS), SOFT, lambda x: _focal(x, SOFT, 1.5, WEIGHTS)),
        (lambda o, b: losses.focal(o, b, gamma=0.5), LABELS, lambda x: _focal(x, np.eye(5)[LABELS], 0.5)),
        (lambda o, b: losses.binary_cross_entropy(o, b, pos_weight=WEIGHTS), MANY, lambda x: _bce(x, MANY, WEIGHTS)),
    ],
    ids=["class_weights", "logit_adjusted", "focal, soft", "focal, hard", "pos_weight"],
)
def test_gradients_equal_finite_differences_of_the_formula_in_float64(loss, label, formula):
    batch = {"label": jnp.asarray(label, jnp.int32 if label is LABELS else jnp.float32)}
    found = jax.grad(lambda logits: loss({"logits": logits}, batch).sum())(OUTPUTS["logits"])
    step = 1e-5
    for row in range(7):
        for column in range(5):
            moved = np.zeros_like(LOGITS)
            moved[row, column] = step
            expected = (formula(LOGITS + moved).sum() - formula(LOGITS - moved).sum()) / (2 * step)
            np.testing.assert_allclose(found[row, column], expected, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.class_weights("ballanced", 3, [1, 2, 3]), "class_weights is 'ballanced' .did you mean 'balanced'"),
        (lambda: losses.class_weights("balanced", 3), "class_weights='balanced' needs class_counts, the 3 numbers"),
        (lambda: losses.class_weights("sqrt", 3, [1, 2]), r"class_counts is \[1, 2\]: expected 3 numbers"),
        (lambda: losses.class_weights("sqrt", 2, [0, 0]), "there are no training examples"),
        (lambda: losses.class_weights([1, 2], 3), r"class_weights is \[1, 2\]: expected 3 numbers of at least 0, one a class"),
        (lambda: losses.class_weights((1, -2, 3), 3), "of at least 0"),
        (lambda: losses.class_weights((1, float("nan"), 3), 3), "expected 3 numbers"),
        (lambda: losses.class_weights(2.0, 3), "class_weights is 2.0: expected 3 numbers"),
        (lambda: losses.class_weights(("a", "b", "c"), 3), "expected 3 numbers"),
        (lambda: losses.class_weights("effective", 2, [1, 2], beta=1.0), "beta is 1.0: it must be at least 0 and less than 1"),
        (lambda: losses.logit_adjusted(OUTPUTS, BATCH), "logit_adjusted needs class_counts, the 5 numbers"),
        (lambda: losses.focal(OUTPUTS, BATCH, alpha=(1, 2)), "alpha is .1, 2.: expected 5 numbers"),
        (lambda: losses.binary_cross_entropy(OUTPUTS, {"label": MANY}, pos_weight="sqrt"), "pos_weight is 'sqrt'"),
        (lambda: losses.binary_cross_entropy(OUTPUTS, {"label": MANY}, pos_weight="balanced"), "needs class_counts"),
        (
            lambda: losses.binary_cross_entropy(OUTPUTS, {"label": MANY}, pos_weight="balanced", class_counts=COUNTS),
            "needs num_examples",
        ),
    ],
)
def test_weights_that_do_not_fit_are_a_clear_error(call, message):
    with pytest.raises(JaxftError, match=message):
        call()


def own_loss(outputs, batch, *, class_counts, scale=1.0):
    return scale * jnp.asarray(class_counts)[batch["label"]]


def test_what_the_run_knows_is_given_to_losses_that_take_it_and_options_come_first():
    known = {"class_counts": COUNTS, "num_examples": 260, "train": True}
    bound = losses.resolve(own_loss, known, scale=2.0)
    np.testing.assert_array_equal(bound(OUTPUTS, BATCH), 2 * COUNTS[LABELS])
    bound = losses.resolve(own_loss, known, class_counts=np.arange(5.0))
    np.testing.assert_array_equal(bound(OUTPUTS, BATCH), LABELS)
    assert losses.resolve(losses.mean_squared_error, known) is losses.mean_squared_error
    weighted = losses.resolve("softmax_cross_entropy", known, class_weights="balanced")
    judged = losses.resolve("softmax_cross_entropy", {**known, "train": False}, class_weights="balanced")
    np.testing.assert_allclose(weighted(OUTPUTS, BATCH), _nll(LOGITS, LABELS, 260 / (5 * COUNTS)), rtol=1e-5)
    np.testing.assert_array_equal(judged(OUTPUTS, BATCH), losses.softmax_cross_entropy(OUTPUTS, BATCH))
