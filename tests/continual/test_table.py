"""Forgetting and its like by their papers' formulas, on numbers worked out by hand."""

import numpy as np
import pytest

from jaxft.continual import average_accuracy, backward_transfer, forgetting
from jaxft.continual.table import table

NAN = np.nan
THREE = np.array([[0.9, NAN, NAN], [0.95, 0.8, NAN], [0.5, 0.6, 0.7]])


def test_the_figures_are_those_of_the_papers():
    assert average_accuracy(THREE) == pytest.approx((0.5 + 0.6 + 0.7) / 3)
    assert forgetting(THREE) == pytest.approx(((0.95 - 0.5) + (0.8 - 0.6)) / 2)  # from the best, not from the first
    assert backward_transfer(THREE) == pytest.approx(((0.5 - 0.9) + (0.6 - 0.8)) / 2)


def test_what_rises_is_no_forgetting():
    gains = np.array([[0.5, NAN], [0.7, 0.9]])
    assert forgetting(gains) == pytest.approx(-0.2)
    assert backward_transfer(gains) == pytest.approx(0.2)


def test_one_task_forgets_nothing():
    one = np.array([[0.75]])
    assert (average_accuracy(one), forgetting(one), backward_transfer(one)) == (0.75, 0.0, 0.0)


def test_the_table_has_a_row_a_task_and_nothing_of_tasks_to_come():
    lines = table(THREE[:2], ["a", "b", "c"])
    assert lines[0].split() == ["after", "a", "b", "c", "mean"]
    assert lines[1].split() == ["a", "90.00%", "90.00%"]
    assert lines[2].split() == ["b", "95.00%", "80.00%", "87.50%"]
    assert "forgetting -5.00%" in lines
    assert "average accuracy 87.50%" in lines
