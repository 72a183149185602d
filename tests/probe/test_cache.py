"""Tip-Adapter's cache is the formula of the paper; training its keys lowers the loss."""

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

from jaxft.errors import JaxftError
from jaxft.parallel import make_mesh
from jaxft.probe import make_cache, nearest, tune_keys

X, Y = load_digits(return_X_y=True)
FEATURES, LABELS, QUERIES = X[:90], Y[:90], X[300:371]

pytestmark = pytest.mark.usefixtures("quick_compiles")


def formula(beta):
    """Equation 4 of the paper, without alpha and CLIP's part."""
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
    affinity = unit(QUERIES) @ unit(FEATURES).T
    return np.exp(-beta * (1 - affinity)) @ np.eye(10)[LABELS]


@pytest.mark.parametrize(("at_once", "devices"), [(1 << 24, 1), (1, 1), (900, 8)])
def test_its_logits_are_the_formula_in_blocks_and_on_devices(monkeypatch, at_once, devices):
    monkeypatch.setattr(nearest, "_AT_ONCE", at_once)
    cache = make_cache(FEATURES, LABELS, 10)
    found = cache.logits(QUERIES, [1.0, 5.5], mesh=make_mesh(devices=jax.devices()[:devices]))
    for beta, logits in zip([1.0, 5.5], found, strict=True):
        np.testing.assert_allclose(logits, formula(beta), rtol=1e-4)


def test_trained_keys_lower_the_loss_of_examples_that_do_not_see_their_own_key():
    cache = make_cache(FEATURES, LABELS, 10)
    base = np.zeros((90, 10), np.float32)

    def loss(cache):
        unit = FEATURES / np.linalg.norm(FEATURES, axis=-1, keepdims=True)
        near = np.exp(-3.0 * (1 - unit @ cache.keys.T)) * (1 - np.eye(90))
        logits = 2.0 * near @ np.eye(10)[LABELS]
        return -np.log(np.exp(logits)[np.arange(90), LABELS] / np.exp(logits).sum(-1)).mean()

    options = {"alpha": 2.0, "beta": 3.0, "batch_size": 32}
    tuned = tune_keys(cache, FEATURES, base, **options)
    assert loss(tuned) < loss(cache) - 0.05
    assert tuned.labels is cache.labels
    np.testing.assert_array_equal(tune_keys(cache, FEATURES, base, **options).keys, tuned.keys)
    assert np.abs(tune_keys(cache, FEATURES, base, seed=1, **options).keys - tuned.keys).max() > 0


def test_a_beta_that_is_not_positive_is_refused():
    with pytest.raises(JaxftError, match="beta is 0: it must be positive"):
        next(make_cache(FEATURES, LABELS, 10).logits(QUERIES, [0]))
