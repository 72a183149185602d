"""EWC's penalty by the paper's formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxft.errors import JaxftError
from jaxft.losses import ewc, softmax_cross_entropy

OUTPUTS = {"logits": jnp.array([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3]])}
BATCH = {"label": jnp.array([1, 2])}
PARAMS = {"frozen": jnp.ones(2), "head": {"kernel": jnp.array([[1.0, 2.0], [3.0, -1.0]]), "bias": jnp.array([0.5, 0.0])}}
ANCHOR = {
    "params": {"head": {"kernel": jnp.zeros((2, 2)), "bias": jnp.array([0.5, 1.0])}},
    "importance": {"head": {"kernel": jnp.array([[1.0, 0.5], [0.0, 2.0]]), "bias": jnp.array([3.0, 0.25])}},
}


def test_it_is_the_cross_entropy_and_half_the_strength_times_weighted_squares_and_its_gradient_is_linear():
    penalty = 1.0 * 1 + 0.5 * 4 + 0 * 9 + 2 * 1 + 3 * 0 + 0.25 * 1
    found = ewc(OUTPUTS, BATCH, params=PARAMS, anchor=ANCHOR, strength=4.0)
    np.testing.assert_allclose(found, softmax_cross_entropy(OUTPUTS, BATCH) + 2 * penalty, rtol=1e-6)
    grads = jax.grad(lambda params: ewc(OUTPUTS, BATCH, params=params, anchor=ANCHOR, strength=4.0).mean())(PARAMS)
    np.testing.assert_allclose(grads["head"]["kernel"], 4 * np.array([[1.0, 1.0], [0.0, -2.0]]), rtol=1e-6)
    np.testing.assert_allclose(grads["head"]["bias"], 4 * np.array([0.0, -0.25]), rtol=1e-6)
    np.testing.assert_array_equal(grads["frozen"], 0)


def test_in_an_evaluation_it_is_the_cross_entropy():
    found = ewc(OUTPUTS, BATCH, params=PARAMS, anchor=None)
    np.testing.assert_array_equal(found, softmax_cross_entropy(OUTPUTS, BATCH))


def test_without_importances_or_with_a_negative_strength_it_is_a_clear_error():
    with pytest.raises(JaxftError, match="set config.anchor.importance"):
        ewc(OUTPUTS, BATCH, params=PARAMS, anchor={"params": PARAMS, "importance": {}})
    with pytest.raises(JaxftError, match="strength is -1"):
        ewc(OUTPUTS, BATCH, params=PARAMS, anchor=ANCHOR, strength=-1)
