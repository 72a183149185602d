"""Metrics against scikit-learn, over parts, padding, NaNs and ties."""

import functools
import itertools
import warnings

import jax
import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    log_loss,
    mean_absolute_error,
    mean_squared_error,
    top_k_accuracy_score,
)

from jaxft.metrics import classification_metrics, merge, model_outputs, to_floats
from jaxft.tasks import get_task

SIZE, CLASSES = 37, 9
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(SIZE, CLASSES)).astype(np.float32) * 2
MASK = (RNG.random(SIZE) < 0.8).astype(np.float32)
REAL = MASK > 0
LABELS = {
    "classify": RNG.integers(0, CLASSES, SIZE).astype(np.int32),
    "multilabel": (RNG.random((SIZE, CLASSES)) < 0.3).astype(np.float32),
    "regression": RNG.normal(size=SIZE).astype(np.float32),
}


SINGLE = ["loss", "accuracy", "balanced_accuracy"]
TASKS = {name: get_task(name, CLASSES) for name in LABELS}


@functools.partial(jax.jit, static_argnums=0)
def _collect(task, logits, label, mask):
    """The collection of a batch, made as the steps make it."""
    loss = TASKS[task].loss({"logits": logits}, {"label": label})
    return TASKS[task].metrics.single_from_model_output(**model_outputs(logits, label, loss, mask))


def _figures(task, logits, label, mask=None):
    mask = np.ones(len(logits), np.float32) if mask is None else mask
    return to_floats(_collect(task, logits, label, mask))


def _logits(task):
    return LOGITS[:, :1] if task == "regression" else LOGITS


def _softmax(logits):
    wide = np.exp(np.asarray(logits, np.float64) - logits.max(-1, keepdims=True))
    return wide / wide.sum(-1, keepdims=True)


def _expected(task, logits, label):
    if task == "classify":
        kinds = np.arange(CLASSES)
        return {
            "loss": log_loss(label, _softmax(logits), labels=kinds),
            "accuracy": accuracy_score(label, logits.argmax(-1)),
            "balanced_accuracy": balanced_accuracy_score(label, logits.argmax(-1)),
            "top5": top_k_accuracy_score(label, logits, k=5, labels=kinds),
        }
    if task == "multilabel":
        p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
        return {
            "loss": np.mean([log_loss(label[:, k], p[:, k], labels=[0, 1]) for k in range(CLASSES)]),
            "accuracy": np.mean([accuracy_score(label[:, k], p[:, k] > 0.5) for k in range(CLASSES)]),
        }
    return {"loss": mean_squared_error(label, logits[:, 0]), "mae": mean_absolute_error(label, logits[:, 0])}


@pytest.mark.parametrize("task", LABELS)
def test_figures_of_the_unmasked_rows_equal_scikit_learns(task):
    found = _figures(task, _logits(task), LABELS[task], MASK)
    expected = _expected(task, _logits(task)[REAL], LABELS[task][REAL])
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("task", LABELS)
@pytest.mark.parametrize("cuts", [(1,), (10, 20), (5, 6, 7, 36), ()])
def test_merged_parts_equal_the_whole(task, cuts):
    edges = [0, *cuts, SIZE]
    parts = [_collect(task, _logits(task)[a:b], LABELS[task][a:b], MASK[a:b]) for a, b in itertools.pairwise(edges)]
    whole = _figures(task, _logits(task), LABELS[task], MASK)
    for collections in (parts, jax.device_get(parts), [*parts, _collect(task, _logits(task), LABELS[task], 0 * MASK)]):
        found = to_floats(merge(collections))
        assert found.keys() == whole.keys()
        for name, value in whole.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("task", LABELS)
def test_a_weight_counts_as_so_many_copies(task):
    weights = RNG.integers(0, 4, SIZE)
    found = _figures(task, _logits(task), LABELS[task], weights.astype(np.float32))
    copied = _figures(task, np.repeat(_logits(task), weights, axis=0), np.repeat(LABELS[task], weights, axis=0))
    for name, value in copied.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("task", LABELS)
def test_masked_rows_of_nan_and_infinity_count_for_nothing(task):
    logits = np.array(_logits(task))
    logits[~REAL] = np.where(np.arange((~REAL).sum())[:, None] % 2, np.nan, np.inf)
    assert _figures(task, logits, LABELS[task], MASK) == _figures(task, _logits(task), LABELS[task], MASK)


def test_rows_with_a_nan_count_as_wrong_whatever_their_label():
    for label in (0, 4, CLASSES - 1):
        logits = np.zeros((4, CLASSES), np.float32)
        logits[:, label] = 1
        assert _figures("classify", logits, np.full(4, label, np.int32))["accuracy"] == 1
        logits[1] = np.nan
        logits[2, (label + 1) % CLASSES] = np.nan
        found = _figures("classify", logits, np.full(4, label, np.int32))
        assert found["accuracy"] == 0.5
        assert found["top5"] == 0.5
        assert np.isnan(found["loss"])


@pytest.mark.parametrize("label", [-1, CLASSES, CLASSES + 3])
def test_a_label_beyond_the_classes_is_never_right(label):
    logits = np.zeros((2, CLASSES), np.float32)
    logits[:, -1] = 1
    found = _figures("classify", logits, np.full(2, label, np.int32))
    assert (found["accuracy"], found["top5"]) == (0, 0)


def test_a_nan_counts_as_a_wrong_label_of_many_and_others_of_its_row_still_count():
    logits, label = np.full((2, 4), -1, np.float32), np.zeros((2, 4), np.float32)
    assert _figures("multilabel", logits, label)["accuracy"] == 1
    logits[0, :3] = np.nan
    assert _figures("multilabel", logits, label)["accuracy"] == 5 / 8


def test_a_nan_prediction_shows_in_the_mean_absolute_error():
    found = _figures("regression", np.array([[1.0], [np.nan]], np.float32), np.zeros(2, np.float32))
    assert np.isnan(found["mae"])


def test_a_class_ruled_out_by_minus_infinity_is_no_error():
    logits = np.array([[-np.inf, 1, 0, 0, 0, 0], [2, -np.inf, 1, 0, 0, 0]], np.float32)
    found = _figures("classify", logits, np.array([1, 2], np.int32))
    assert found["accuracy"] == 0.5
    assert found["top5"] == 1


def test_equal_logits_rank_by_class_number_as_argmax_and_top_k_do():
    # Few distinct values: nearly every row has ties.
    logits = RNG.integers(0, 3, (400, CLASSES)).astype(np.float32)
    label = RNG.integers(0, CLASSES, 400).astype(np.int32)
    found = _figures("classify", logits, label)
    np.testing.assert_allclose(found["accuracy"], (logits.argmax(-1) == label).mean(), rtol=1e-6)
    largest = np.asarray(jax.lax.top_k(logits, 5)[1])
    np.testing.assert_allclose(found["top5"], (largest == label[:, None]).any(-1).mean(), rtol=1e-6)


@pytest.mark.parametrize(("label", "accuracy", "top5"), [(0, 1, 1), (1, 0, 1), (4, 0, 1), (5, 0, 0), (8, 0, 0)])
def test_a_network_that_says_nothing_is_right_about_the_first_class_only(label, accuracy, top5):
    found = _figures("classify", np.zeros((3, CLASSES), np.float32), np.full(3, label, np.int32))
    assert (found["accuracy"], found["top5"]) == (accuracy, top5)


def test_soft_labels_count_by_their_largest_share():
    hard = LABELS["classify"]
    soft = np.full((SIZE, CLASSES), 0.05, np.float32)
    soft[np.arange(SIZE), hard] = 0.6
    found, expected = _figures("classify", LOGITS, soft, MASK), _figures("classify", LOGITS, hard, MASK)
    assert found["accuracy"] == expected["accuracy"]
    assert found["top5"] == expected["top5"]
    assert found["loss"] != expected["loss"]


@pytest.mark.parametrize(("classes", "names"), [(2, SINGLE), (5, SINGLE), (6, [*SINGLE, "top5"])])
def test_the_five_best_of_five_classes_are_not_reported(classes, names):
    assert list(classification_metrics(classes).__annotations__) == names
    assert list(get_task("classify", classes).metrics.__annotations__) == names


@pytest.mark.parametrize("task", LABELS)
def test_the_gradient_norm_is_the_average_over_steps_and_not_over_examples(task):
    collection = TASKS[task].train_metrics
    parts = []
    for norm, (a, b) in ((1.0, (0, 30)), (4.0, (30, SIZE))):
        batch = _logits(task)[a:b], LABELS[task][a:b], np.zeros(b - a), MASK[a:b]
        made = jax.jit(
            lambda norm, finite, *batch: collection.single_from_model_output(
                **model_outputs(*batch), grad_norm=norm, finite=finite
            )
        )
        parts.append(made(norm, np.array([True, norm < 2, False]), *batch))
    merged = merge(parts)
    assert (merged.nonfinite.steps, merged.nonfinite.first, merged.nonfinite.leaves) == (2, 2, 1)  # of the first such step
    figures = to_floats(merged)
    # A number a class is too much for every step.
    assert figures.keys() == {"grad_norm", *_figures(task, _logits(task), LABELS[task])} - {"balanced_accuracy"}
    assert figures["grad_norm"] == 2.5


@pytest.mark.parametrize("present", [(3,), (0, 8), (1, 2, 4, 7), tuple(range(9))])
@pytest.mark.parametrize("size", [1, 30, 200])
def test_balanced_accuracy_equals_scikit_learns_where_classes_are_unequal_or_absent(size, present):
    rng = np.random.default_rng(size)
    share = 1 / (1 + np.arange(len(present))) ** 2
    label = rng.choice(present, size, p=share / share.sum()).astype(np.int32)
    logits = rng.normal(size=(size, CLASSES)).astype(np.float32)
    logits[np.arange(size), label] += 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # predictions of classes that do not occur
        expected = balanced_accuracy_score(label, logits.argmax(-1))
    np.testing.assert_allclose(_figures("classify", logits, label)["balanced_accuracy"], expected, rtol=1e-7)


def test_balanced_accuracy_of_a_network_that_knows_one_class_is_one_over_the_classes():
    label = np.repeat(np.arange(4), [97, 1, 1, 1]).astype(np.int32)
    found = _figures("classify", np.tile(np.eye(CLASSES, dtype=np.float32)[0], (100, 1)), label)
    np.testing.assert_allclose((found["accuracy"], found["balanced_accuracy"]), (0.97, 0.25), rtol=1e-6)


def test_balanced_accuracy_counts_a_nan_as_wrong_and_a_label_beyond_the_classes_not_at_all():
    logits, label = np.eye(4, 9, dtype=np.float32), np.array([0, 1, 2, 3], np.int32)
    logits[1] = np.nan
    assert _figures("classify", logits, label)["balanced_accuracy"] == 0.75
    assert _figures("classify", logits, np.array([0, 1, -1, CLASSES], np.int32))["balanced_accuracy"] == 0.5


def test_an_empty_collection_takes_part_in_a_merge():
    kind = TASKS["classify"].metrics
    whole = _collect("classify", LOGITS, LABELS["classify"], MASK)
    found = to_floats(merge([kind.empty(), whole, kind.empty()]))
    assert found == to_floats(whole)
    assert np.isnan(np.asarray(kind.empty().balanced_accuracy.compute()))


def test_figures_of_no_example_are_nan_and_not_a_number_that_misleads():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = _figures("classify", LOGITS, LABELS["classify"], np.zeros(SIZE, np.float32))
    assert all(np.isnan(value) for value in found.values())
