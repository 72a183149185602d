"""The order of examples is a function of (seed, step): exact epochs, any shares of rows, any place to start from."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxft.data.order import augment_rng, batch_examples, batch_positions, example_at, permutation

SEEDS = st.integers(-(2**63), 2**64)
HOSTS = st.sampled_from([1, 2, 4])


@given(seed=SEEDS, n=st.integers(1, 60), epochs=st.integers(1, 5))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_every_example_comes_exactly_once_an_epoch(seed, n, epochs):
    stream = [example_at(position, seed, n) for position in range(epochs * n)]
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
        found = batch_examples(step, batch_size, seed, n)
        assert found == list(itertools.islice(stream, batch_size))
        assert all(type(example) is int for example in found)


def test_a_batch_larger_than_the_data_shows_examples_more_than_once():
    first, second = permutation(5, 0, 3).tolist(), permutation(5, 1, 3).tolist()
    assert batch_examples(0, 5, 5, 3) == [*first, *second[:2]]
    assert batch_examples(1, 5, 5, 3)[:1] == second[2:]


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
    epoch, example = example_at(10**15 + 7, 0, 1000)
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
