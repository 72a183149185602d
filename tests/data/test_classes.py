"""How many examples each class has, and the line on classes of unequal size."""

import numpy as np
import pytest

from jaxft.data import class_counts, imbalance


def test_counts_of_every_kind_of_label():
    hard = np.array([2, 0, 2], np.int32)
    np.testing.assert_array_equal(class_counts(hard, 4), [1, 0, 2, 0])
    np.testing.assert_array_equal(class_counts(np.eye(4, dtype=np.float32)[hard], 4), [1, 0, 2, 0])
    np.testing.assert_allclose(class_counts(np.array([[0.25, 0.75], [1, 1]], np.float32), 2), [1.25, 1.75])
    assert class_counts(np.array([0.5, 1], np.float32), 1) is None
    np.testing.assert_array_equal(class_counts(np.zeros(0, np.int32), 2), [0, 0])


def test_counts_of_millions_are_exact():
    labels = np.ones((2**24 + 3, 1), np.float32)  # a sum in float32 would stop at 2**24
    assert class_counts(labels, 1) == [2**24 + 3]


def test_the_largest_and_the_smallest_class_that_occurs_are_named():
    line = imbalance(np.array([1200.0, 0, 30, 60]), ("ant", "bee", "cat", "dog"))
    assert line == "classes are unequal: 'ant' has 1,200 training examples, 40 for each of the 30 of 'cat'"


@pytest.mark.parametrize("counts", [[], [0, 0], [5], [5, 0], [5, 14], [7, 7, 7]])
def test_nothing_is_said_of_nearly_equal_classes(counts):
    assert imbalance(np.array(counts, np.float64), tuple("abcdef")) == ""


def test_three_times_as_many_are_told():
    assert imbalance(np.array([5.0, 15]), ("a", "b"))
