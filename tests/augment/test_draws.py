"""Draws out of tables of quantiles have the distributions that SciPy knows."""

import jax
import numpy as np
import pytest
from scipy import stats

from jaxft.augment.draws import beta, dirichlet

KEYS = jax.random.split(jax.random.key(3), 20_000)


def distance(sample, distribution):
    ordered = np.sort(np.asarray(sample, np.float64))
    return np.abs(distribution.cdf(ordered) - (np.arange(len(ordered)) + 0.5) / len(ordered)).max()


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 5.0])
def test_shares_are_drawn_from_beta(alpha):
    sample = np.asarray(jax.vmap(lambda key: beta(key, alpha))(KEYS))
    assert ((sample >= 0) & (sample <= 1)).all()
    # A small alpha asks for shares so near 1 that float32 has none; they are looked at from 0, by symmetry.
    lower = sample[sample < 0.5]
    assert abs(len(lower) / len(sample) - 0.5) < 0.012
    assert np.abs(2 * stats.beta(alpha, alpha).cdf(np.sort(lower)) - (np.arange(len(lower)) + 0.5) / len(lower)).max() < 0.015


@pytest.mark.parametrize(("alpha", "count"), [(1.0, 3), (0.3, 4)])
def test_weights_are_drawn_from_dirichlet(alpha, count):
    sample = np.asarray(jax.vmap(lambda key: dirichlet(key, alpha, count))(KEYS))
    np.testing.assert_allclose(sample.sum(-1), 1, atol=1e-5)
    for place in range(count):
        assert distance(np.clip(sample[:, place], 1e-9, 1), stats.beta(alpha, alpha * (count - 1))) < 0.02
