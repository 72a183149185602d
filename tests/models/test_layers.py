import flax.linen as nn
import jax
import numpy as np
import pytest

from jaxft.models.layers import he_out


@pytest.mark.parametrize("shape", [(3, 3, 4, 6), (1, 7, 3, 1), (5, 8)])
def test_kernels_drawn_along_one_axis_are_those_of_flaxs_initializer(shape):
    key = jax.random.key(7)
    expected = nn.initializers.variance_scaling(2.0, "fan_out", "normal")(key, shape)
    # Of one version of JAX equal, of others but for rounding.
    np.testing.assert_allclose(he_out(key, shape), expected, rtol=3e-7)
