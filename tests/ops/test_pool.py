"""Pooling against torch's own results (fixtures) and XLA's gradients."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxft import ops
from jaxft.errors import JaxftError

pytestmark = pytest.mark.usefixtures("quick_compiles")

FIXTURES = np.load(Path(__file__).parent / "fixtures" / "pool.npz")
CASES = sorted({key.split("|")[0] for key in FIXTURES.files})


def _options(name):
    kind, *numbers = name.split("_")
    return kind, [int(number) for number in numbers]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("lowering", ["cpu", "xla"])
def test_pooling_and_its_gradient_equal_torch(name, lowering, monkeypatch):
    monkeypatch.setenv("JAXFT_OPS", lowering)
    kind, numbers = _options(name)
    x, y, cotangent, dx = (jnp.asarray(FIXTURES[f"{name}|{part}"]) for part in ("x", "y", "cotangent", "dx"))
    if kind == "max":
        window, stride, padding, ceil = numbers
        pool = lambda x: ops.max_pool(x, window, stride, padding, ceil_mode=bool(ceil))
    elif kind == "avg":
        window, stride, padding, include, ceil = numbers
        pool = lambda x: ops.avg_pool(x, window, stride, padding, bool(include), bool(ceil))
    else:
        pool = lambda x: ops.adaptive_avg_pool(x, tuple(numbers))
    found, pull = jax.vjp(jax.jit(pool), x)
    np.testing.assert_allclose(found, y, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(pull(cotangent)[0], dx, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("window", "strides", "padding"), [(2, 2, 0), (3, 2, 1), (3, 1, 1), (3, 3, 0)])
def test_max_pool_gives_the_gradient_of_ties_to_the_first_as_xla_does(window, strides, padding, monkeypatch):
    # ReLU makes zeros, zeros make ties.
    x = jnp.maximum(jnp.asarray(np.random.default_rng(0).integers(-3, 3, (2, 7, 6, 3)), jnp.float32), 0)
    gradients = []
    for lowering in ("cpu", "xla"):
        monkeypatch.setenv("JAXFT_OPS", lowering)
        y, pull = jax.vjp(lambda x: ops.max_pool(x, window, strides, padding), x)
        gradients.append(pull(jnp.arange(1.0, y.size + 1).reshape(y.shape))[0])
    np.testing.assert_array_equal(*gradients)


def test_global_average_sums_in_float32():
    x = jnp.full((1, 64, 64, 1), 1.001, jnp.bfloat16)
    assert ops.global_avg_pool(x).dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(ops.global_avg_pool(x), np.float32), np.asarray(x[0, 0, 0], np.float32)[None])


def test_a_window_larger_than_the_map_is_a_clear_error():
    with pytest.raises(JaxftError, match="larger than the padded map"):
        ops.max_pool(jnp.ones((1, 2, 2, 1)), 3)
    with pytest.raises(JaxftError, match="not smaller than the window"):
        ops.max_pool(jnp.ones((1, 8, 8, 1)), 2, padding=2)
