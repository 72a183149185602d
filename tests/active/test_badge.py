"""Against scikit-learn's k-means++ on embeddings that are written out, and against gradients that JAX takes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.cluster import kmeans_plusplus

from jaxft.active import badge
from jaxft.errors import JaxftError
from jaxft.evaluate.scores import softmax


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(0)
    features, kernel = rng.normal(size=(60, 7)), rng.normal(size=(7, 4))
    return features, kernel, softmax(features @ kernel)


@pytest.fixture(scope="module")
def gradients(examples):
    """The gradient of the cross-entropy with the likeliest class, by the last layer's kernel [D, K], one row an example."""
    features, kernel, _ = examples

    def loss(kernel, h):
        logits = h @ kernel
        return optax.softmax_cross_entropy_with_integer_labels(logits, jax.lax.stop_gradient(logits.argmax()))

    with jax.enable_x64(True):
        found = jax.vmap(jax.grad(loss), (None, 0))(jnp.asarray(kernel), jnp.asarray(features))
        assert found.dtype == jnp.float64
        return np.asarray(found).reshape(len(features), -1)


@pytest.mark.parametrize("seed", range(5))
def test_it_chooses_what_kmeans_plusplus_chooses_among_the_gradients(examples, gradients, seed):
    features, _, probabilities = examples
    _, expected = kmeans_plusplus(gradients, 20, n_local_trials=1, random_state=seed)
    chosen, distances = badge(probabilities, features, 20, seed=seed)
    assert chosen.tolist() == expected.tolist()
    for place in range(1, 20):
        squared = ((gradients[chosen[place]] - gradients[chosen[:place]]) ** 2).sum(-1).min()
        assert distances[place] == pytest.approx(squared, rel=1e-9)
    assert distances[0] == np.inf


def test_a_seed_decides_and_none_is_chosen_twice(examples):
    features, _, probabilities = examples
    first, again, other = (badge(probabilities, features, 40, seed=seed)[0].tolist() for seed in (3, 3, 4))
    assert first == again != other
    assert len(set(first)) == 40


def test_far_and_unsure_examples_are_likelier_than_sure_ones():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 3))
    probabilities = np.tile([0.999, 0.001], (200, 1))
    probabilities[:20] = [0.55, 0.45]
    hits = sum((badge(probabilities, features, 10, seed=seed)[0][1:] < 20).mean() for seed in range(20)) / 20
    assert hits > 0.95


def test_where_all_that_are_left_were_chosen_in_all_but_name_each_comes_once():
    features, probabilities = np.ones((6, 2)), np.tile([0.7, 0.3], (6, 1))
    assert sorted(badge(probabilities, features, 6)[0].tolist()) == list(range(6))


def test_few_examples_and_none(examples):
    features, _, probabilities = examples
    assert sorted(badge(probabilities[:3], features[:3], 10)[0].tolist()) == [0, 1, 2]
    assert badge(probabilities[:1], features[:1], 1)[0].tolist() == [0]
    assert badge(probabilities[:0], features[:0], 5)[0].tolist() == []


def test_what_does_not_belong_together_is_said(examples):
    features, _, probabilities = examples
    with pytest.raises(JaxftError, match=r"probabilities \[60, 4\] and features \[59, 7\] must be \[N, K\] and \[N, D\]"):
        badge(probabilities, features[:-1], 3)
