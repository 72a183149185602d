"""Logistic regression finds what scikit-learn's finds, on any number of devices, at any C and for any kind of label."""

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from jaxft.errors import JaxftError
from jaxft.parallel import make_mesh
from jaxft.probe import logistic_path, logistic_regression
from jaxft.probe.linear import Linear, scaling

X, Y = load_digits(return_X_y=True)
X, Y = X[:400], Y[:400]
SCALED = StandardScaler().fit_transform(X)
STRENGTHS = (1e-4, 1e-2, 1.0)

pytestmark = pytest.mark.usefixtures("quick_compiles")


def reference(x, y, C):
    return LogisticRegression(C=C, tol=1e-10, max_iter=20_000).fit(x, y)


def softmax(logits):
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


@pytest.fixture(scope="module")
def references():
    """C -> scikit-learn's on digits."""
    return {C: reference(SCALED, Y, C) for C in STRENGTHS}


def test_coefficients_and_probabilities_are_those_of_scikit_learn_along_a_path(references):
    for C, found in logistic_path(SCALED, Y, STRENGTHS):
        expected = references[C]
        assert found.converged
        np.testing.assert_allclose(found.kernel, expected.coef_.T, atol=2e-6 * np.abs(expected.coef_).max())
        np.testing.assert_allclose(found.bias, expected.intercept_, atol=1e-5)
        np.testing.assert_allclose(softmax(found.logits(SCALED)), expected.predict_proba(SCALED), atol=1e-6)


@pytest.mark.parametrize("devices", [3, 8])
def test_examples_split_over_devices_with_rows_to_fill_up_give_the_same(references, devices):
    mesh = make_mesh(devices=jax.devices()[:devices])
    for count in (400, 397):
        expected = references[1.0] if count == 400 else reference(SCALED[:count], Y[:count], 1.0)
        found = logistic_regression(SCALED[:count], Y[:count], C=1.0, mesh=mesh)
        np.testing.assert_allclose(softmax(found.logits(SCALED)), expected.predict_proba(SCALED), atol=1e-6)


def test_standardisation_is_folded_into_kernel_and_bias(references):
    shifted = X + 1000
    (_, found), *_ = logistic_path(shifted, Y, [1.0], standardize=True)
    np.testing.assert_allclose(softmax(found.logits(shifted)), references[1.0].predict_proba(SCALED), atol=1e-6)


def test_of_two_classes_it_is_the_binary_regression():
    few = Y < 2
    for C in (1e-3, 10.0):
        expected = reference(SCALED[few], Y[few], C)
        found = logistic_regression(SCALED[few], Y[few], C=C, tolerance=1e-11)
        # scikit-learn's search ends some 1e-6 short of the minimum.
        np.testing.assert_allclose(found.kernel[:, 1] - found.kernel[:, 0], expected.coef_[0], atol=5e-6)
        np.testing.assert_allclose(softmax(found.logits(SCALED)), expected.predict_proba(SCALED), atol=5e-6)


def test_of_several_labels_it_is_one_regression_a_label():
    labels = np.stack([Y % 2 == 0, Y > 6, Y == 3], 1).astype(np.float32)
    expected = OneVsRestClassifier(LogisticRegression(C=0.1, tol=1e-10, max_iter=20_000)).fit(SCALED, labels)
    found = logistic_regression(SCALED, labels, C=0.1, multilabel=True)
    np.testing.assert_allclose(1 / (1 + np.exp(-found.logits(SCALED))), expected.predict_proba(SCALED), atol=1e-6)


def test_soft_labels_count_as_examples_weighted_by_their_shares():
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(10), len(X))
    repeated, weights = np.repeat(SCALED, 10, 0), shares.ravel()
    model = LogisticRegression(C=0.01, tol=1e-10, max_iter=20_000)
    expected = model.fit(repeated, np.tile(np.arange(10), len(X)), sample_weight=weights)
    found = logistic_regression(SCALED, shares, C=0.01)
    np.testing.assert_allclose(softmax(found.logits(SCALED)), expected.predict_proba(SCALED), atol=1e-6)


def test_in_float32_probabilities_are_within_a_thousandth(references):
    for C, found in logistic_path(SCALED, Y, STRENGTHS, dtype="float32"):
        np.testing.assert_allclose(softmax(found.logits(SCALED)), references[C].predict_proba(SCALED), atol=1e-3)


def test_a_warm_start_saves_steps_and_ends_at_the_same_minimum():
    cold = logistic_regression(SCALED, Y, C=0.1, standardize=True)
    warm = logistic_regression(SCALED, Y, C=0.1, standardize=True, start=cold)
    assert cold.steps > 10
    assert warm.steps <= 2
    near = logistic_regression(SCALED, Y, C=0.11, standardize=True, start=cold)
    assert near.steps < cold.steps
    np.testing.assert_allclose(warm.kernel, cold.kernel, atol=1e-6)


def test_a_search_that_is_cut_short_says_so():
    found = logistic_regression(SCALED, Y, C=1.0, max_steps=3)
    assert (found.steps, found.converged) == (3, False)


def test_scaling_is_that_of_scikit_learn_and_constant_features_stay():
    x = np.concatenate([X, np.full((400, 1), 1e4), 3 + 1e-8 * X[:, :1]], 1).astype(np.float32)
    found = scaling(x, block=33)
    expected = StandardScaler().fit(x.astype(np.float64))
    np.testing.assert_allclose(found.mean, expected.mean_)
    np.testing.assert_allclose(found.std[:-2], expected.scale_[:-2])
    assert found.std[-2:].tolist() == [1, 1]
    rng = np.random.default_rng(0)
    some = Linear(rng.normal(size=(66, 3)), rng.normal(size=3))
    again = found.unfolded(found.folded(some))
    np.testing.assert_allclose(again.kernel, some.kernel)
    np.testing.assert_allclose(again.bias, some.bias, atol=1e-9)


@pytest.mark.parametrize(
    ("features", "labels", "options", "message"),
    [
        (SCALED, Y[:5], {}, r"labels are \[5\] for 400 examples"),
        (SCALED[:0], Y[:0], {}, "not .N, D. with an example at least"),
        (SCALED, Y / 2, {}, "class numbers from 0, not float64"),
        (SCALED, Y - 1, {}, "class numbers from 0, not int64 from -1"),
        (SCALED, Y * 0, {}, "labels go up to 0, of 1 classes"),
        (SCALED, Y, {"classes": 9}, "labels go up to 9, of 9 classes"),
        (SCALED, Y, {"multilabel": True}, r"not \[N, K\]"),
        (SCALED, Y, {"C": 0.0}, "C is 0.0: it must be positive"),
        (SCALED, Y, {"dtype": "bfloat16"}, "dtype is 'bfloat16'"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(features, labels, options, message):
    with pytest.raises(JaxftError, match=message):
        logistic_regression(features, labels, **options)
