"""Each figure equals scikit-learn's of the same name, over random and degenerate predictions."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from jaxft.evaluate import scores


@pytest.fixture(autouse=True)
def _without_scikit_learns_warnings():
    """It warns of classes that are absent; that is what these tests are about."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="sklearn")
        yield


def _labels(rng, size, classes, kind):
    """(labels, predicted) with the wanted oddity."""
    labels, predicted = rng.integers(0, classes, size), rng.integers(0, classes, size)
    if kind == "absent from labels":
        labels = labels % max(classes - 2, 1)
    elif kind == "never predicted":
        predicted = predicted % max(classes - 2, 1)
    elif kind == "absent from both":
        labels, predicted = labels % max(classes - 1, 1), predicted % max(classes - 1, 1)
    elif kind == "one class only":
        labels = np.full(size, classes - 1)
    elif kind == "one answer only":
        predicted = np.full(size, 0)
    elif kind == "all right":
        predicted = labels.copy()
    elif kind == "all wrong":
        predicted = (labels + 1) % classes
    return labels, predicted


KINDS = [
    "random",
    "absent from labels",
    "never predicted",
    "absent from both",
    "one class only",
    "one answer only",
    "all right",
    "all wrong",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("size", "classes"), [(1, 2), (2, 3), (50, 2), (200, 7)])
def test_figures_of_the_confusion_matrix_equal_scikit_learns(kind, size, classes):
    labels, predicted = _labels(np.random.default_rng(size), size, classes, kind)
    kinds = np.arange(classes)
    confusion = scores.confusion_matrix(labels, predicted, classes)
    np.testing.assert_array_equal(confusion, metrics.confusion_matrix(labels, predicted, labels=kinds))
    assert scores.accuracy(labels, predicted) == pytest.approx(metrics.accuracy_score(labels, predicted))
    expected = metrics.precision_recall_fscore_support(labels, predicted, labels=kinds, zero_division=0)
    for found, wanted in zip(scores.precision_recall_f1(confusion), expected, strict=False):
        assert found.shape == (classes,)
        np.testing.assert_allclose(found, wanted, rtol=1e-12)
    np.testing.assert_array_equal(confusion.sum(1), expected[3])
    assert scores.macro_f1(confusion) == pytest.approx(metrics.f1_score(labels, predicted, average="macro", zero_division=0))


def test_figures_of_the_confusion_matrix_warn_of_nothing():
    confusion = scores.confusion_matrix([0, 0], [0, 1], 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [part.tolist() for part in scores.precision_recall_f1(confusion)] == [
            [1, 0, 0, 0],
            [0.5, 0, 0, 0],
            [2 / 3, 0, 0, 0],
        ]
        scores.macro_f1(confusion)


@pytest.mark.parametrize("k", [1, 2, 3, 5, 6])
def test_top_k_accuracy_equals_scikit_learns_where_no_logits_are_equal(k):
    rng = np.random.default_rng(k)
    logits, labels = rng.normal(size=(100, 6)), rng.integers(0, 6, 100)
    expected = metrics.top_k_accuracy_score(labels, logits, k=k, labels=np.arange(6))
    assert scores.top_k_accuracy(labels, logits, k) == pytest.approx(expected)


def test_equal_logits_rank_by_class_number_so_top_1_is_the_accuracy_of_argmax():
    rng = np.random.default_rng(0)
    logits, labels = rng.integers(0, 3, (300, 5)).astype(np.float32), rng.integers(0, 5, 300)
    assert scores.top_k_accuracy(labels, logits, 1) == scores.accuracy(labels, logits.argmax(-1))
    flat = np.zeros((5, 5), np.float32)
    assert [scores.top_k_accuracy(np.arange(5), flat, k) for k in range(1, 7)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("labels", ["random", "one class"])
def test_log_loss_and_softmax_equal_scikit_learns(dtype, labels):
    rng = np.random.default_rng(0)
    logits = (rng.normal(size=(80, 5)) * 4).astype(dtype)
    labels = rng.integers(0, 5, 80) if labels == "random" else np.full(80, 3)
    p = scores.softmax(logits)
    assert p.dtype == np.float64
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-12)
    np.testing.assert_allclose(p, np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum(-1, keepdims=True))
    assert scores.log_loss(labels, logits) == pytest.approx(metrics.log_loss(labels, p, labels=np.arange(5)))


def test_softmax_and_log_loss_of_huge_logits_are_finite_and_warn_of_nothing():
    logits = np.array([[1e4, 0, -1e4], [-1e30, 0, -1e30]], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(scores.softmax(logits), [[1, 0, 0], [0, 1, 0]])
        assert scores.log_loss([1, 1], logits) == 5e3


BINARY = {
    "random": lambda rng, n: (rng.random(n) < 0.3, rng.normal(size=n)),
    "many ties": lambda rng, n: (rng.random(n) < 0.3, rng.integers(0, 4, n).astype(np.float32)),
    "all tied": lambda rng, n: (rng.random(n) < 0.5, np.zeros(n)),
    "all right": lambda rng, n: (np.arange(n) >= n // 2, np.arange(n, dtype=np.float32)),
    "all wrong": lambda rng, n: (np.arange(n) < n // 2, np.arange(n, dtype=np.float32)),
    "one positive": lambda rng, n: (np.arange(n) == 1, rng.normal(size=n)),
    "one negative": lambda rng, n: (np.arange(n) != 1, rng.normal(size=n)),
}


@pytest.mark.parametrize("kind", BINARY)
@pytest.mark.parametrize("size", [2, 3, 10, 300])
def test_average_precision_and_roc_auc_equal_scikit_learns(kind, size):
    labels, values = BINARY[kind](np.random.default_rng(size), size)
    labels[:2] = [False, True]  # both classes are there
    assert scores.average_precision(labels, values) == pytest.approx(metrics.average_precision_score(labels, values))
    assert scores.roc_auc(labels, values) == pytest.approx(metrics.roc_auc_score(labels, values))
    as_float = labels.astype(np.float32)
    assert scores.average_precision(as_float, values) == scores.average_precision(labels, values)
    assert scores.roc_auc(as_float, values) == scores.roc_auc(labels, values)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=1, max_size=12))
def test_average_precision_and_roc_auc_equal_scikit_learns_however_small_and_tied(rows):
    labels, values = (np.array(column) for column in zip(*rows, strict=True))
    assert scores.average_precision(labels, values) == pytest.approx(metrics.average_precision_score(labels, values))
    expected = metrics.roc_auc_score(labels, values) if 0 < labels.sum() < len(labels) else math.nan
    assert scores.roc_auc(labels, values) == pytest.approx(expected, nan_ok=True)


def test_with_one_class_only_average_precision_is_0_or_1_and_roc_auc_is_nan():
    values = np.array([0.3, 0.1, 0.3])
    for labels, precision in ((np.zeros(3), 0), (np.ones(3), 1)):
        assert scores.average_precision(labels, values) == precision
        assert scores.average_precision(labels, values) == metrics.average_precision_score(labels, values)
        assert math.isnan(scores.roc_auc(labels, values))
        assert math.isnan(metrics.roc_auc_score(labels, values))


def test_mean_average_precision_equals_scikit_learns_macro_average():
    rng = np.random.default_rng(0)
    labels, logits = (
        (rng.random((60, 5)) < 0.3).astype(np.float32),
        rng.normal(size=(60, 5)).round(1).astype(np.float32),
    )
    expected = metrics.average_precision_score(labels, logits, average="macro")
    assert scores.mean_average_precision(labels, logits) == pytest.approx(expected)
    labels[:, 2] = 0
    expected = metrics.average_precision_score(labels, logits, average="macro")
    assert scores.mean_average_precision(labels, logits) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["random", "exact", "one example too far", "worse than the mean"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_regression_scores_equal_scikit_learns(kind, dtype):
    rng = np.random.default_rng(0)
    labels = rng.normal(size=40) * 10
    values = labels + rng.normal(size=40)
    if kind == "exact":
        values = labels
    elif kind == "one example too far":
        values[3] = 1e4
    elif kind == "worse than the mean":
        values = -labels
    labels, values = labels.astype(dtype), values.astype(dtype)
    found = scores.regression_scores(labels, values)
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(labels, values))
    assert found["rmse"] == pytest.approx(metrics.root_mean_squared_error(labels, values))
    assert found["r2"] == pytest.approx(metrics.r2_score(labels, values))


def test_r2_of_labels_that_are_all_the_same_is_not_a_number():
    for labels in (np.full(5, 2.0), np.array([2.0])):
        found = scores.regression_scores(labels, labels + 1)
        assert math.isnan(found["r2"])
        assert found["mae"] == found["rmse"] == 1


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 30), st.integers(2, 6), st.integers(0, 2**31))
def test_figures_of_any_small_prediction_equal_scikit_learns(size, classes, seed):
    rng = np.random.default_rng(seed)
    labels, predicted = rng.integers(0, classes, size), rng.integers(0, classes, size)
    confusion = scores.confusion_matrix(labels, predicted, classes)
    assert scores.macro_f1(confusion) == pytest.approx(metrics.f1_score(labels, predicted, average="macro", zero_division=0))
