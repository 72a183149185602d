"""What is split off holds its share of every class, label and range of values, and whole groups only."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from jaxft.data.stratify import stratified
from jaxft.errors import JaxftError


@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    fraction=st.sampled_from([0.01, 0.1, 0.25, 0.5, 0.9, 0.99]),
    seed=st.integers(-5, 5),
)
@settings(deadline=None, derandomize=True, max_examples=100)
def test_every_class_gives_its_fraction_and_keeps_one_on_each_side(counts, fraction, seed):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int32)
    if max(counts) == 1 and fraction <= 0.5:
        with pytest.raises(JaxftError, match="too few to split"):
            stratified(labels, fraction, seed)
        return
    rest, part = stratified(labels, fraction, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([rest, part])), np.arange(len(labels)))
    assert (np.diff(rest) > 0).all()
    assert (np.diff(part) > 0).all()
    for label, count in enumerate(counts):
        given = (labels[part] == label).sum()
        if count >= 2:
            assert given == min(max(round(fraction * count), 1), count - 1)
        else:
            assert given == round(fraction)


def test_the_fraction_of_large_classes_is_exact():
    labels = np.repeat(np.arange(3), [1000, 200, 50]).astype(np.int32)
    _, part = stratified(labels, 0.1, 0)
    np.testing.assert_array_equal(np.bincount(labels[part]), [100, 20, 5])


def test_a_seed_gives_one_split_and_another_seed_another():
    labels = np.repeat(np.arange(3), 30).astype(np.int32)
    parts = [tuple(stratified(labels, 0.2, seed)[1]) for seed in (0, 0, 1, 2, -1)]
    assert parts[0] == parts[1]
    assert len(set(parts)) == 4


def test_the_split_is_the_same_in_every_version():
    # Who splits the same data again, years later, must not train on what was tested on.
    labels = np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 1], np.int32)
    assert stratified(labels, 0.4, 0)[1].tolist() == [0, 2, 3, 5]


def test_a_fraction_of_nothing_takes_nothing():
    rest, part = stratified(np.array([0, 0, 1], np.int32), 0.0, 0)
    assert rest.tolist() == [0, 1, 2]
    assert part.tolist() == []


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 1.5, float("nan")])
def test_a_fraction_outside_zero_to_one_is_refused(fraction):
    with pytest.raises(JaxftError, match=r"must lie in \[0, 1\)"):
        stratified(np.zeros(9, np.int32), fraction, 0)


@pytest.mark.parametrize("labels", [np.zeros((1, 3), np.float32), np.zeros(1, np.float32), np.zeros(1, np.int32)])
def test_a_part_that_would_be_empty_is_refused(labels):
    with pytest.raises(JaxftError, match="1 examples are too few to split 10% off"):
        stratified(labels, 0.1, 0)


# Several labels.


def drawn_labels(size, shares, seed=0):
    """[size, K] f32 flags, each label on its share of the examples."""
    return (np.random.default_rng(seed).random((size, len(shares))) < np.array(shares)).astype(np.float32)


@given(
    size=st.integers(2, 60),
    shares=st.lists(st.sampled_from([0.0, 0.05, 0.3, 0.9]), min_size=1, max_size=5),
    fraction=st.sampled_from([0.05, 0.1, 0.25, 0.5, 0.9]),
    seed=st.integers(0, 3),
)
@settings(deadline=None, derandomize=True, max_examples=80)
def test_several_labels_are_parted_whole_and_neither_side_is_empty(size, shares, fraction, seed):
    labels = drawn_labels(size, shares, seed)
    rest, part = stratified(labels, fraction, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([rest, part])), np.arange(size))
    assert len(rest) > 0
    assert len(part) > 0


def test_each_of_several_labels_has_its_share_where_chance_would_miss_it():
    labels = drawn_labels(2000, (0.5, 0.2, 0.05, 0.02, 0.01))
    _, part = stratified(labels, 0.2, 0)
    wanted = 0.2 * labels.sum(0)
    assert (np.abs(labels[part].sum(0) - wanted) <= 2).all()
    assert abs(len(part) - 400) <= 10
    chance = np.random.default_rng(0).permutation(2000)[:400]
    assert np.abs(labels[chance].sum(0) - wanted).max() > 2


def test_examples_without_a_label_are_split_too():
    _, part = stratified(np.zeros((50, 4), np.float32), 0.3, 0)
    assert len(part) == 15
    assert tuple(part) != tuple(range(15))


# Values.


@pytest.mark.parametrize(("size", "fraction"), [(50, 0.3), (1000, 0.1), (7, 0.5), (10, 0.9), (2, 0.01)])
def test_values_give_the_exact_share_spread_over_their_range(size, fraction):
    values = np.random.default_rng(1).permutation(size).astype(np.float32) ** 3
    rest, part = stratified(values, fraction, 0)
    count = min(max(round(fraction * size), 1), size - 1)
    assert len(part) == count
    few = part if count <= size / 2 else rest
    ranks = np.sort(np.argsort(np.argsort(values))[few])
    # One out of each of as many quantile bins as there are examples.
    assert (ranks * len(few) // size == np.arange(len(few))).all() or size % len(few)
    assert tuple(stratified(values, fraction, 0)[1]) == tuple(part)


def test_equal_values_are_no_range():
    rest, part = stratified(np.ones(20, np.float32), 0.25, 3)
    assert (len(rest), len(part)) == (15, 5)
    assert tuple(part) != tuple(stratified(np.ones(20, np.float32), 0.25, 4)[1])


# Groups.


@given(
    sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), min_size=2, max_size=40),
    fraction=st.sampled_from([0.05, 0.1, 0.25, 0.5, 0.8]),
    seed=st.integers(0, 3),
)
@settings(deadline=None, derandomize=True, max_examples=80)
def test_a_group_is_on_one_side_and_pure_groups_come_within_half_the_largest_of_their_class(sizes, fraction, seed):
    labels = np.concatenate([np.full(size, label, np.int32) for size, label in sizes])
    groups = [f"g{number}" for number, (size, _) in enumerate(sizes) for _ in range(size)]
    rest, part = stratified(labels, fraction, seed, groups)
    np.testing.assert_array_equal(np.sort(np.concatenate([rest, part])), np.arange(len(labels)))
    assert not {groups[index] for index in rest} & {groups[index] for index in part}
    assert len(rest) > 0
    assert len(part) > 0
    if len({groups[index] for index in part}) == 1 or len({groups[index] for index in rest}) == 1:
        return  # perhaps the one that was moved so that no side is empty
    for label in set(labels.tolist()):
        largest = max(size for size, of in sizes if of == label)
        assert abs((labels[part] == label).sum() - fraction * (labels == label).sum()) <= largest / 2 + 1e-9


@pytest.mark.parametrize("kind", ["classes", "labels", "values"])
def test_groups_stay_together_whatever_the_labels_are(kind):
    rng = np.random.default_rng(0)
    groups = [f"patient {number}" for number in rng.integers(0, 60, 600)]
    labels = {
        "classes": rng.integers(0, 4, 600).astype(np.int32),
        "labels": drawn_labels(600, (0.5, 0.2, 0.05)),
        "values": rng.random(600, np.float32),
    }[kind]
    rest, part = stratified(labels, 0.2, 0, groups)
    assert not {groups[index] for index in rest} & {groups[index] for index in part}
    assert 0.17 <= len(part) / 600 <= 0.23
    if kind == "values":
        assert abs(labels[part].mean() - labels.mean()) < 0.05
    else:
        flags = np.eye(4)[labels] if kind == "classes" else labels
        assert (np.abs(flags[part].sum(0) / flags.sum(0) - 0.2) < 0.05).all()


def test_shares_are_as_near_as_those_of_scikit_learn():
    ours, theirs = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        sizes = rng.integers(1, 30, 50)
        groups = np.repeat(np.arange(50), sizes)
        odds = rng.dirichlet(np.ones(3), 50)  # each group has its own mixture of classes
        labels = np.concatenate([rng.choice(3, size, p=p) for size, p in zip(sizes, odds, strict=True)]).astype(np.int32)
        whole = np.bincount(labels)

        def error(part, labels=labels, whole=whole):
            return np.abs(np.bincount(labels[part], minlength=3) / whole - 0.2).max()

        ours.append(error(stratified(labels, 0.2, seed, [str(group) for group in groups])[1]))
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(labels, labels, groups)
        theirs += [error(part) for _, part in folds]
    assert np.mean(ours) <= np.mean(theirs)
    assert max(ours) < 0.05


def test_examples_of_no_group_are_split_one_by_one():
    labels = np.repeat(np.arange(2), 50).astype(np.int32)
    rest, part = stratified(labels, 0.2, 0, [""] * 100)
    np.testing.assert_array_equal(np.bincount(labels[part]), [10, 10])
    assert len(rest) == 80


def test_one_group_cannot_be_split():
    with pytest.raises(JaxftError, match=r"all 9 examples are in one group \('burst 1'\): nothing can be split off"):
        stratified(np.zeros(9, np.int32), 0.2, 0, ["burst 1"] * 9)
