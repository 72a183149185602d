"""Intervals: their coverage, their agreement with plain resampling, and what they do with little data."""

import numpy as np
import pytest

from jaxft.errors import JaxftError
from jaxft.evaluate import bootstrap_difference, bootstrap_interval


def _plain(values, level, resamples, seed):
    """Resampling as the textbook has it, example by example."""
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(resamples):
        means.append(np.mean([values[rng.integers(len(values))] for _ in range(len(values))]))
    return np.quantile(means, [(1 - level) / 2, (1 + level) / 2])


def _coverage(draw, truth, rounds=400, **more):
    inside = 0
    for seed in range(rounds):
        low, high = bootstrap_interval(draw(np.random.default_rng(seed)), resamples=600, seed=seed, **more)
        inside += low <= truth <= high
    return inside / rounds


@pytest.mark.parametrize(("size", "share"), [(100, 0.5), (200, 0.8), (400, 0.1)])
def test_intervals_of_an_accuracy_cover_the_truth_about_95_times_in_100(size, share):
    # 400 rounds: the standard error of the coverage is 0.011.
    found = _coverage(lambda rng: rng.random(size) < share, share)
    assert 0.915 <= found <= 0.98


def test_intervals_of_a_mean_of_many_values_cover_the_truth_about_95_times_in_100():
    found = _coverage(lambda rng: rng.exponential(2.0, 150), 2.0, rounds=200)
    assert 0.9 <= found <= 0.985


@pytest.mark.parametrize("level", [0.5, 0.8])
def test_narrower_levels_cover_less(level):
    found = _coverage(lambda rng: rng.random(300) < 0.4, 0.4, level=level)
    assert abs(found - level) < 0.08


@pytest.mark.parametrize("kind", ["right or wrong", "few values", "many values", "weights of many labels"])
def test_intervals_agree_with_a_plain_resampling_loop(kind):
    rng = np.random.default_rng(0)
    values = {
        "right or wrong": (rng.random(60) < 0.7).astype(np.float64),
        "few values": rng.integers(-2, 5, 60).astype(np.float64),
        "many values": rng.normal(size=100) * 3 + 1,
        "weights of many labels": rng.integers(0, 65, 200) / 65,
    }[kind]
    distinct = len(np.unique(values))
    assert (distinct > 64) == (kind == "many values")  # both ways of drawing are compared
    found = bootstrap_interval(values, resamples=4000, seed=1)
    expected = _plain(values, 0.95, 3000, seed=2)
    # The end points of two such resamplings differ by about 0.07 standard errors.
    error = values.std() / np.sqrt(len(values))
    np.testing.assert_allclose(found, expected, atol=0.2 * error)
    np.testing.assert_allclose(found, values.mean() + np.array([-1.96, 1.96]) * error, atol=0.3 * error)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    values = np.random.default_rng(0).normal(size=90)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_bools_and_floats_in_any_order_give_the_same_interval():
    values = np.random.default_rng(0).random(50) < 0.6
    found = bootstrap_interval(values)
    assert found == bootstrap_interval(values.astype(np.float32)) == bootstrap_interval(np.sort(values))
    assert found == bootstrap_interval(list(values))


def test_intervals_are_python_floats_that_hold_the_mean():
    for values in (np.arange(10), np.random.default_rng(0).normal(size=80)):
        low, high = bootstrap_interval(values)
        assert type(low) is type(high) is float
        assert low < np.mean(values) < high


@pytest.mark.parametrize("values", [[1.0], [0.0], [1, 1, 1, 1], np.zeros(1000), [0.3] * 7])
def test_values_that_are_all_the_same_have_an_interval_of_no_width(values):
    np.testing.assert_allclose(bootstrap_interval(values), (values[0], values[0]), rtol=1e-12)


def test_two_examples_one_right_span_everything():
    assert bootstrap_interval([0, 1]) == (0, 1)


def test_more_examples_and_lower_levels_make_narrower_intervals():
    values = np.tile([0.0, 1.0, 1.0], 20)
    width = lambda values, **more: np.diff(bootstrap_interval(values, **more))[0]
    assert width(np.tile(values, 4)) == pytest.approx(width(values) / 2, rel=0.1)
    assert width(values, level=0.5) < width(values, level=0.9) < width(values, level=0.99)


def test_a_paired_difference_is_the_interval_of_the_differences():
    rng = np.random.default_rng(0)
    before, after = rng.random(80) < 0.5, rng.random(80) < 0.7
    found = bootstrap_difference(before, after, level=0.9, resamples=500, seed=7)
    assert found == bootstrap_interval(after.astype(int) - before.astype(int), level=0.9, resamples=500, seed=7)
    swapped = bootstrap_difference(after, before, level=0.9, resamples=4000)
    np.testing.assert_allclose(swapped, (-found[1], -found[0]), atol=0.03)


def test_pairing_finds_a_small_gain_that_two_separate_intervals_hide():
    rng = np.random.default_rng(0)
    before = rng.random(500) < 0.6
    after = before | (np.arange(500) % 25 == 0)  # a few more right, none lost
    low, high = bootstrap_difference(before, after)
    assert 0 < low < high < 0.05
    assert bootstrap_interval(after)[0] < bootstrap_interval(before)[1]


def test_no_difference_at_all_has_an_interval_of_no_width():
    values = np.random.default_rng(0).random(30) < 0.5
    assert bootstrap_difference(values, values) == (0, 0)


def test_paired_differences_cover_the_truth_about_95_times_in_100():
    inside = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        before = rng.random(200) < 0.6
        after = np.where(rng.random(200) < 0.2, rng.random(200) < 0.9, before)  # mean gain 0.2 * (0.9 - 0.6)
        low, high = bootstrap_difference(before, after, resamples=600, seed=seed)
        inside += low <= 0.06 <= high
    assert 0.91 <= inside / 300 <= 0.985


def test_no_examples_levels_out_of_range_and_unpaired_values_are_errors():
    with pytest.raises(JaxftError, match="an interval needs at least one example"):
        bootstrap_interval([])
    for level in (0, 1, 95, -0.5):
        with pytest.raises(JaxftError, match=f"level is {level}: it must lie between 0 and 1"):
            bootstrap_interval([0, 1], level=level)
    with pytest.raises(JaxftError, match=r"of the same examples: \(3,\) against \(2,\)"):
        bootstrap_difference([0, 1, 1], [0, 1])
