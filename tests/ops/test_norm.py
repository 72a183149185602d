"""The written-out gradients of batch and layer normalisation against the derived ones, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxft import ops

pytestmark = pytest.mark.usefixtures("quick_compiles")


def weighted(y):
    """A sum in which no gradient vanishes."""
    return (y * jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)).sum()


def of_batch_norm(x, scale, bias):
    y, mean, var = ops.batch_norm(x, scale, bias, 1e-3)
    return weighted(y) + (mean * scale).sum() + jnp.square(var).sum()


def of_layer_norm(x, scale, bias):
    return weighted(ops.layer_norm(x, scale, bias, 1e-3))


@pytest.mark.parametrize("loss", [of_batch_norm, of_layer_norm])
@pytest.mark.parametrize("shape", [(4, 3, 5, 6), (7, 2), (1, 1, 1, 3), (2, 9, 4), (5,)])
def test_the_written_out_gradient_is_the_derived_one(loss, shape, monkeypatch):
    random = np.random.default_rng(0)
    with jax.enable_x64(True):
        operands = [jnp.asarray(random.normal(2, 3, size)) for size in (shape, shape[-1:], shape[-1:])]
        found = []
        for choice in ("auto", "xla"):
            monkeypatch.setenv("JAXFT_OPS", choice)
            found.append(jax.value_and_grad(loss, (0, 1, 2))(*operands))
        for own, derived in zip(*map(jax.tree.leaves, found), strict=True):
            assert own.dtype == jnp.float64
            np.testing.assert_allclose(own, derived, rtol=1e-9, atol=1e-9)


def test_bfloat16_is_normalised_with_float32_statistics():
    x = jnp.full((8, 32, 32, 2), 3.0, jnp.bfloat16).at[0, 0, 0].set(5.0)
    wide = x.astype(jnp.float32)
    (y, mean, var), pull = jax.vjp(lambda x: ops.batch_norm(x, jnp.ones(2), jnp.zeros(2), 1e-5), x)
    assert y.dtype == mean.dtype == var.dtype == jnp.float32
    np.testing.assert_allclose(mean, wide.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(var, wide.var((0, 1, 2)), rtol=1e-5)
    assert pull((y, mean, var))[0].dtype == jnp.bfloat16


def test_layer_norm_of_bfloat16_computes_in_float32():
    x = jnp.asarray(np.random.default_rng(0).normal(100, 1, (4, 256)), jnp.bfloat16)
    wide = np.asarray(x, np.float64)
    y, pull = jax.vjp(lambda x: ops.layer_norm(x, jnp.ones(256), jnp.zeros(256), 1e-6), x)
    expected = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    assert pull(y)[0].dtype == jnp.bfloat16


@pytest.mark.parametrize("norm", [lambda *of: ops.batch_norm(*of)[0], ops.layer_norm])
def test_forward_mode_needs_the_derived_form(norm, monkeypatch):
    x = jnp.arange(12.0).reshape(4, 3)
    normalise = lambda x: norm(x, jnp.ones(3), jnp.zeros(3), 1e-5)
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(normalise, (x,), (x,))
    monkeypatch.setenv("JAXFT_OPS", "xla")
    moved = jax.jvp(normalise, (x,), (jnp.ones_like(x),))[1]
    np.testing.assert_allclose(moved, jnp.zeros_like(x), atol=1e-6)
