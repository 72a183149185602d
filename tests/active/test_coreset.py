"""Against the paper's algorithm 1 by brute force, and against the best choice there is."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import pairwise_distances

from jaxft.active import k_center_greedy
from jaxft.errors import JaxftError


def _greedy(features, labelled, count):
    """Algorithm 1 of Sener & Savarese, every distance computed anew."""
    pool, chosen, radii = list(range(len(features))), [], []
    for _ in range(count):
        centres = np.concatenate([labelled, features[chosen]])
        nearest = pairwise_distances(features, centres).min(1)
        best = max((i for i in pool if i not in chosen), key=lambda i: nearest[i])
        chosen.append(best)
        radii.append(nearest[best])
    return chosen, radii


@pytest.mark.parametrize("labelled", [1, 13, 3000])
def test_it_is_the_papers_algorithm(labelled):
    rng = np.random.default_rng(labelled)
    features, known = rng.normal(size=(50, 6)), rng.normal(size=(labelled, 6))
    chosen, distances = k_center_greedy(features, known, 15)
    expected, radii = _greedy(features, known, 15)
    assert chosen.tolist() == expected
    np.testing.assert_allclose(distances, radii, rtol=1e-9)


def test_no_choice_of_as_many_covers_twice_as_well():
    rng = np.random.default_rng(5)
    features, known = rng.normal(size=(12, 2)), rng.normal(size=(2, 2))

    def radius(chosen):
        return pairwise_distances(features, np.concatenate([known, features[list(chosen)]])).min(1).max()

    best = min(radius(chosen) for chosen in itertools.combinations(range(12), 3))
    found = radius(k_center_greedy(features, known, 3)[0])
    assert best <= found <= 2 * best


def test_what_is_labelled_is_chosen_last_and_each_once():
    features = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 0.0], [0.0, 3.0]])
    chosen, distances = k_center_greedy(features, np.zeros((1, 2)), 9)
    assert chosen.tolist() == [1, 3, 0, 2]
    np.testing.assert_array_equal(distances, [5, 3, 0, 0])


def test_float32_features_far_from_zero_keep_their_distances():
    rng = np.random.default_rng(0)
    features = (1000 + rng.normal(size=(40, 8))).astype(np.float32)
    chosen, distances = k_center_greedy(features[5:], features[:5], 10)
    expected, radii = _greedy(features[5:].astype(np.float64), features[:5].astype(np.float64), 10)
    assert chosen.tolist() == expected
    np.testing.assert_allclose(distances, radii, rtol=1e-6)


def test_it_needs_a_labelled_example_of_the_same_width():
    with pytest.raises(JaxftError, match=r"labelled \[0, 2\] must be \[N, D\] and \[M, D\], M at least 1"):
        k_center_greedy(np.zeros((3, 2)), np.zeros((0, 2)), 1)
    with pytest.raises(JaxftError, match=r"features \[3, 2\] and labelled \[1, 4\]"):
        k_center_greedy(np.zeros((3, 2)), np.zeros((1, 4)), 1)
