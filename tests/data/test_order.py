"""The order of examples is a function of (seed, step): exact epochs, any number of hosts, any place to start from."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxft.data.order import augment_rng, batch_positions, example_at, permutation

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
        shares = [list(batch_positions(step, batch_size, host, hosts)) for host in range(hosts)]
        assert {len(part) for part in shares} == {share}
        together = list(itertools.chain(*shares))
        assert together == list(batch_positions(step, batch_size, 0, 1))
        found += together
    assert found == list(range(start * batch_size, (start + steps) * batch_size))


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
