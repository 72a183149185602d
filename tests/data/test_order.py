"""The order of examples is a function of (seed, step): exact epochs, any shares of rows, any place to start from."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxft.data.order import SAMPLERS, Order, batch_examples, batch_positions, permutation
from jaxft.errors import JaxftError
from jaxft.streams import augment_rng

SEEDS = st.integers(-(2**63), 2**64)
COUNTS = st.lists(st.integers(0, 12), min_size=1, max_size=6).filter(any)
BY_CLASS = st.sampled_from(["balanced", "sqrt"])
HOSTS = st.sampled_from([1, 2, 4])


@given(seed=SEEDS, n=st.integers(1, 60), epochs=st.integers(1, 5))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_every_example_comes_exactly_once_an_epoch(seed, n, epochs):
    order = Order(seed, n)
    stream = [order.example_at(position) for position in range(epochs * n)]
    assert [epoch for epoch, _ in stream] == [position // n for position in range(epochs * n)]
    for epoch in range(epochs):
        examples = [example for _, example in stream[epoch * n : (epoch + 1) * n]]
        assert sorted(examples) == list(range(n))
        assert examples == permutation(seed, epoch, n).tolist()


@given(start=st.integers(0, 10**9), steps=st.integers(1, 5), share=st.integers(1, 9), hosts=HOSTS)
@settings(deadline=None, derandomize=True, max_examples=100)
def test_the_hosts_shares_are_the_batch_and_the_batches_are_the_stream(start, steps, share, hosts):
    batch_size = share * hosts
    found = []
    for step in range(start, start + steps):
        shares = [batch_positions(step, batch_size, range(host * share, (host + 1) * share)) for host in range(hosts)]
        assert {len(part) for part in shares} == {share}
        together = list(itertools.chain(*shares))
        assert together == batch_positions(step, batch_size, range(batch_size))
        found += together
    assert found == list(range(start * batch_size, (start + steps) * batch_size))


@given(step=st.integers(0, 10**9), batch_size=st.integers(1, 40), data=st.data())
@settings(deadline=None, derandomize=True, max_examples=100)
def test_any_rows_in_any_order_have_the_positions_they_have_in_the_whole_batch(step, batch_size, data):
    whole = batch_positions(step, batch_size, range(batch_size))
    rows = data.draw(st.permutations(range(batch_size)))[: data.draw(st.integers(0, batch_size))]
    for kind in (list, np.array):  # of a mesh they come as an array
        found = batch_positions(step, batch_size, kind(rows))
        assert found == [whole[row] for row in rows]
        assert all(type(position) is int for position in found)


def test_every_other_pair_of_rows_is_the_share_of_a_process_of_a_slice():
    # Two processes of a TPU slice whose devices lie in turns on the mesh.
    assert batch_positions(3, 8, [0, 1, 4, 5]) == [24, 25, 28, 29]
    assert batch_positions(3, 8, [2, 3, 6, 7]) == [26, 27, 30, 31]


@given(seed=SEEDS, n=st.integers(1, 30), batch_size=st.integers(1, 40), steps=st.integers(1, 4))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_the_examples_of_a_batch_are_those_of_its_positions_also_across_the_end_of_an_epoch(seed, n, batch_size, steps):
    stream = itertools.chain(*(permutation(seed, epoch, n).tolist() for epoch in range(steps * batch_size // n + 1)))
    for step in range(steps):
        found = batch_examples(Order(seed, n), step, batch_size)
        assert found == list(itertools.islice(stream, batch_size))
        assert all(type(example) is int for example in found)


def test_a_batch_larger_than_the_data_shows_examples_more_than_once():
    first, second = permutation(5, 0, 3).tolist(), permutation(5, 1, 3).tolist()
    assert batch_examples(Order(5, 3), 0, 5) == [*first, *second[:2]]
    assert batch_examples(Order(5, 3), 1, 5)[:1] == second[2:]


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {tuple(permutation(seed, epoch, 30).tolist()) for seed in range(-5, 5) for epoch in range(10)}
    assert len(orders) == 100


def test_every_place_of_an_epoch_is_as_likely():
    counts = np.zeros((5, 5))
    for epoch in range(2000):
        counts[np.arange(5), permutation(1, epoch, 5)] += 1
    assert np.abs(counts - 400).max() < 75  # the standard deviation is 18


def test_what_an_example_looks_like_depends_on_seed_epoch_and_index_alone():
    keys = list(itertools.product((-1, 0, 1, 2**40), (0, 1, 2), (0, 1, 2)))
    first = [augment_rng(*key).random(3).tobytes() for key in keys]
    assert len(set(first)) == len(keys)
    assert first == [augment_rng(*key).random(3).tobytes() for key in keys]


def test_order_and_augmentation_share_no_stream():
    rng = augment_rng(3, 2, 0)
    assert permutation(3, 2, 40).tolist() != rng.permutation(40).tolist()


def test_a_step_far_ahead_is_reached_at_once():
    start = time.process_time()
    epoch, example = Order(0, 1000).example_at(10**15 + 7)
    assert (epoch, example) == (10**12, permutation(0, 10**12, 1000)[7])
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("seed", "epoch", "order"),
    [(0, 0, [2, 0, 4, 1, 7, 5, 3, 6]), (7, 3, [5, 1, 3, 7, 2, 6, 4, 0])],
)
def test_the_order_is_the_same_in_every_version(seed, epoch, order):
    # A run that was started by an older version, or with an older NumPy, must go on with the same examples.
    assert permutation(seed, epoch, 8).tolist() == order


def test_the_randomness_of_an_example_is_the_same_in_every_version():
    assert augment_rng(7, 3, 5).integers(0, 1000, 4).tolist() == [53, 208, 654, 922]


def _labels(counts, seed=0):
    """Labels with these many examples a class, in no order."""
    return np.random.default_rng(seed % 2**32).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int32)


def _shares(counts, sampler):
    """The exact share of each class, as fractions of an epoch."""
    counts = np.asarray(counts, np.float64)
    weights = (counts > 0).astype(np.float64) if sampler == "balanced" else np.sqrt(counts)
    return weights / weights.sum()


def _epochs(order, first, number):
    return [order.example_at(position) for position in range(first * order.n, (first + number) * order.n)]


@given(seed=SEEDS, counts=COUNTS, sampler=BY_CLASS, epochs=st.integers(1, 6))
@settings(deadline=None, derandomize=True, max_examples=100)
def test_after_every_epoch_each_class_is_less_than_one_example_away_from_its_share(seed, counts, sampler, epochs):
    labels = _labels(counts, seed)
    order = Order(seed, len(labels), labels, sampler)
    shown = np.array([labels[example] for _, example in _epochs(order, 0, epochs)])
    for epoch in range(1, epochs + 1):
        found = np.bincount(shown[: epoch * len(labels)], minlength=len(counts))
        exact = epoch * len(labels) * _shares(counts, sampler)
        assert np.abs(found - exact).max() < 1 - 1e-6 or np.allclose(found, exact)
        if sampler == "balanced":
            alone = np.bincount(shown[(epoch - 1) * len(labels) : epoch * len(labels)], minlength=len(counts))
            assert np.ptp(alone[np.asarray(counts) > 0]) <= 1


@given(seed=SEEDS, counts=COUNTS, sampler=BY_CLASS, epochs=st.integers(1, 6))
@settings(deadline=None, derandomize=True, max_examples=100)
def test_the_examples_of_a_class_are_shown_equally_often_and_each_pass_shows_each_once(seed, counts, sampler, epochs):
    labels = _labels(counts, seed)
    stream = _epochs(Order(seed, len(labels), labels, sampler), 0, epochs)
    assert len(set(stream)) == len(stream)  # no two looks are the same
    for label in range(len(counts)):
        members = np.flatnonzero(labels == label)
        shown = [example for _, example in stream if labels[example] == label]
        often = np.bincount(shown, minlength=len(labels))[members] if len(members) else np.zeros(1)
        assert np.ptp(often) <= 1
        for example, times in zip(members, often, strict=False):
            assert sorted(number for number, other in stream if other == example) == list(range(times))


@given(seed=SEEDS, counts=COUNTS, sampler=st.sampled_from(SAMPLERS), batch_size=st.integers(1, 40), steps=st.integers(1, 4))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_any_position_is_reached_at_once_by_any_batch_size_and_sampler(seed, counts, sampler, batch_size, steps):
    labels = _labels(counts, seed)
    stream = [Order(seed, len(labels), labels, sampler).example_at(position) for position in range(steps * batch_size)]
    for step in reversed(range(steps)):
        order = Order(seed, len(labels), labels.copy(), sampler)  # as after a restart
        positions = batch_positions(step, batch_size, range(batch_size))
        assert [order.example_at(position) for position in reversed(positions)] == [
            stream[position] for position in reversed(positions)
        ]
        assert batch_examples(order, step, batch_size) == [stream[position][1] for position in positions]


@given(seed=SEEDS, counts=COUNTS, sampler=st.sampled_from(SAMPLERS), first=st.integers(0, 50), number=st.integers(1, 3))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_the_passes_of_a_stretch_of_epochs_are_the_least_and_the_greatest_it_shows(seed, counts, sampler, first, number):
    labels = _labels(counts, seed)
    order = Order(seed, len(labels), labels, sampler)
    passes = [shown for shown, _ in _epochs(order, first, number)]
    assert order.passes(first * order.n, (first + number) * order.n) == (min(passes), max(passes))


def test_shuffle_needs_no_labels_and_does_not_look_at_them():
    plain, given_labels = Order(3, 20), Order(3, 20, np.arange(20) % 3, "shuffle")
    assert [plain.example_at(p) for p in range(60)] == [given_labels.example_at(p) for p in range(60)]
    assert plain.passes(10, 41) == (0, 2)


def test_balanced_classes_of_equal_size_come_as_often_as_shuffled_ones():
    labels = _labels([7, 7, 7])
    stream = _epochs(Order(1, 21, labels, "balanced"), 5, 1)
    assert sorted(stream) == [(5, example) for example in range(21)]


def test_an_epoch_by_class_is_mixed_and_far_epochs_are_exact():
    labels = _labels([1000, 10])
    order = Order(0, 1010, labels, "balanced")
    for epoch in (0, 10**12):
        shown = np.array([labels[example] for _, example in _epochs(order, epoch, 1)])
        assert np.bincount(shown).tolist() == [505, 505]
        assert 150 < shown[:505].sum() < 350  # the standard deviation is 8
    later = Order(0, 5, _labels([4, 1]), "balanced")  # 2.5 each: in turn 3 and 2
    counts = [np.bincount([later.labels[example] for _, example in _epochs(later, 10**12 + k, 1)]).tolist() for k in range(4)]
    assert counts == [[3, 2], [2, 3], [3, 2], [2, 3]]


def test_passes_over_one_class_do_not_depend_on_the_others():
    one, other = (Order(4, len(labels), labels, "balanced") for labels in (_labels([6, 6]), np.repeat([0, 1], [6, 30])))
    streams = []
    for order in (one, other):
        stream = _epochs(order, 0, 6)
        members = np.flatnonzero(order.labels == 0).tolist()
        streams.append(sorted((number, members.index(example)) for number, example in stream if order.labels[example] == 0))
    assert streams[1][: len(streams[0])] == streams[0]


def test_soft_labels_are_drawn_by_their_largest_share():
    hard = _labels([9, 3])
    soft = np.where(hard[:, None] == np.arange(2), 0.7, 0.3).astype(np.float32)
    found = [Order(0, 12, labels, "sqrt") for labels in (hard, soft)]
    assert _epochs(found[0], 0, 3) == _epochs(found[1], 0, 3)


@pytest.mark.parametrize(
    ("labels", "sampler", "message"),
    [
        (np.zeros(4, np.int32), "ballanced", "no sampler is called 'ballanced' .did you mean 'balanced'"),
        (None, "balanced", "needs one class an example"),
        (np.zeros(4, np.float32), "sqrt", "multi-label data and regressions take 'shuffle'"),
        (np.ones((4, 3), np.float32), "balanced", r"not labels of the shape \[4, 3\] and type float32"),
        (np.zeros(3, np.int32), "balanced", "there are 4 examples and 3 labels"),
    ],
)
def test_a_sampler_that_does_not_fit_the_labels_is_a_clear_error(labels, sampler, message):
    with pytest.raises(JaxftError, match=message):
        Order(0, 4, labels, sampler)


def test_the_order_by_class_is_the_same_in_every_version():
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 2], np.int32)
    expected = {
        "balanced": [(5, 5), (1, 0), (4, 6), (9, 7), (2, 0), (8, 7), (4, 5), (1, 4)],
        "sqrt": [(4, 5), (2, 2), (3, 5), (6, 7), (2, 4), (5, 7), (4, 6), (2, 1)],
    }
    assert {sampler: _epochs(Order(7, 8, labels, sampler), 3, 1) for sampler in expected} == expected


@given(seed=SEEDS, n=st.integers(1, 12), views=st.integers(1, 4), count=st.integers(1, 6), step=st.integers(0, 5))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_a_batch_of_views_shows_each_of_its_examples_so_often_each_time_another_look(seed, n, views, count, step):
    order, plain = Order(seed, n, views=views), Order(seed, n)
    rows = order.rows_at(step, views * count, range(views * count))
    examples = batch_examples(plain, step, count)
    assert [example for _, example in rows] == examples * views
    assert batch_examples(order, step, views * count) == examples * views
    for view in range(views):
        passes = [plain.example_at(step * count + place)[0] for place in range(count)]
        assert [shown for shown, _ in rows[view * count : (view + 1) * count]] == [views * one + view for one in passes]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_look_of_an_example_is_shown_once_whatever_the_sampler(sampler):
    labels = np.repeat([0, 1, 2], [2, 3, 7]).astype(np.int32)
    order = Order(3, 12, labels, sampler, views=2)
    shown = [row for step in range(9) for row in order.rows_at(step, 8, range(8))]
    assert len({*shown}) == len(shown)
    plain = Order(3, 12, labels, sampler)
    assert {example for _, example in shown} == {plain.example_at(position)[1] for position in range(36)}


def test_strided_microbatches_hold_all_views_of_their_examples():
    rows = Order(0, 20, views=2).rows_at(1, 12, range(12))
    for micro in range(3):
        examples = [example for _, example in rows[micro::3]]
        assert examples[:2] == examples[2:]


def test_a_batch_that_holds_no_whole_number_of_examples_is_one_clear_error():
    with pytest.raises(JaxftError, match="a batch of 7 does not hold a whole number of examples with 2 views each"):
        Order(0, 5, views=2).rows_at(0, 7, [0])
    with pytest.raises(JaxftError, match="0 views"):
        Order(0, 5, views=0)
