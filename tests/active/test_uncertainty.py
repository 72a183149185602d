import numpy as np
import pytest
import scipy.stats

from jaxft.active import entropy, least_confidence, margin, most


@pytest.fixture
def probabilities():
    return np.random.default_rng(0).dirichlet(np.ones(5), size=200)


def test_entropy_is_scipys(probabilities):
    np.testing.assert_allclose(entropy(probabilities), scipy.stats.entropy(probabilities, axis=1), rtol=1e-12)


def test_entropy_of_a_certain_example_is_zero_and_of_an_even_one_log_k():
    np.testing.assert_array_equal(entropy(np.eye(3)), np.zeros(3))
    np.testing.assert_allclose(entropy(np.full((1, 4), 0.25)), np.log(4))


def test_margin_and_least_confidence_are_their_formulas_written_out(probabilities):
    for row, sure, close in zip(probabilities, least_confidence(probabilities), margin(probabilities), strict=True):
        first, second = sorted(row.tolist(), reverse=True)[:2]
        assert sure == pytest.approx(1 - first, abs=1e-15)
        assert close == pytest.approx(1 - (first - second), abs=1e-15)


def test_of_two_classes_all_three_choose_alike():
    p = np.random.default_rng(1).uniform(size=50)
    two = np.stack([p, 1 - p], axis=1)
    orders = [most(score(two), 50).tolist() for score in (entropy, margin, least_confidence)]
    assert orders[0] == orders[1] == orders[2] == np.argsort(np.abs(p - 0.5), kind="stable").tolist()


def test_of_three_classes_they_do_not():
    rows = np.array([[0.5, 0.5, 0.0], [0.4, 0.3, 0.3], [0.45, 0.28, 0.27]])
    assert most(margin(rows), 1).tolist() == [0]
    assert most(entropy(rows), 1).tolist() == [1]
    assert most(least_confidence(rows), 2).tolist() == [1, 2]


def test_equal_scores_keep_their_order_and_no_more_are_chosen_than_there_are():
    assert most(np.array([1.0, 2.0, 2.0, 1.0]), 3).tolist() == [1, 2, 0]
    assert most(np.array([1.0, 2.0]), 9).tolist() == [1, 0]
    assert most(np.zeros(0), 3).tolist() == []
