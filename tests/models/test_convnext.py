"""ConvNeXt V2's normalisation where a channel is exactly zero everywhere, as GELU makes it on small maps."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxft.models.convnext import GlobalResponseNorm


def test_the_gradient_of_a_channel_of_zeros_is_that_of_torch_not_nan():
    layer = GlobalResponseNorm(jnp.float32)
    variables = {"params": {"scale": jnp.ones(4), "bias": jnp.ones(4)}}
    gradient = jax.grad(lambda x: (layer.apply(variables, x) ** 2).sum())
    some = jnp.array([[[[2.0, 0.0, 0.0, 0.0]]]])
    # Of timm's GlobalResponseNorm: the mean norm is 0.5, and to a channel of zeros no norm has a slope.
    np.testing.assert_allclose(gradient(some)[0, 0, 0], [110, 2, 2, 2], rtol=1e-4)
    np.testing.assert_allclose(gradient(0 * some)[0, 0, 0], [2, 2, 2, 2], rtol=1e-4)
