"""The Fisher diagonal against torch's autograd (scripts/make_fisher_fixtures.py) and closed forms."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxft import tree
from jaxft.continual import fisher_diagonal
from jaxft.errors import JaxftError
from jaxft.ops import conv
from jaxft.parallel import make_mesh, replicated

FOUND = dict(np.load(Path(__file__).parent / "fixtures" / "fisher.npz"))
PARAMS = jax.tree.map(
    lambda leaf: jnp.asarray(leaf, jnp.float32),
    tree.unflatten({path: FOUND[path] for path in FOUND if "/" in path and "|" not in path}),
)
ALL = tree.map_with_path(lambda path, leaf: True, PARAMS)


def _apply(params, model_state, image, *, train, rng):
    assert train is False
    hidden = jnp.tanh(image.reshape(len(image), -1) @ params["body"]["kernel"] + params["body"]["bias"])
    return {"logits": hidden @ params["head"]["kernel"] + params["head"]["bias"]}, model_state


def _batches(size, padding=0):
    total = len(FOUND["label"])
    for start in range(0, total, size):
        rows = np.arange(start, min(start + size, total))
        real = np.ones(len(rows) + padding, np.float32)
        real[len(rows) :] = 0
        rows = np.concatenate([rows, np.repeat(rows[-1:], padding)])
        yield {
            "image": FOUND["image"][rows].astype(np.float32),
            "label": FOUND["label"][rows].astype(np.int32),
            "index": rows.astype(np.int32),
            "mask": real,
        }


@pytest.mark.parametrize("labels", ["expected", "data"])
def test_it_is_torchs_squared_gradients_one_example_at_a_time(labels):
    found = fisher_diagonal(_apply, PARAMS, {}, _batches(7), ALL, labels=labels)
    assert found.keys() == {*tree.paths(PARAMS)}
    for path, leaf in found.items():
        assert leaf.dtype == np.float32
        np.testing.assert_allclose(leaf, FOUND[f"{labels}|{path}"], rtol=2e-5, atol=1e-7, err_msg=path)


@pytest.mark.parametrize(("size", "padding"), [(7, 0), (3, 0), (1, 0), (4, 3), (7, 1)])
def test_batches_and_padding_change_nothing(size, padding):
    found = fisher_diagonal(_apply, PARAMS, {}, _batches(size, padding), ALL)
    for path, leaf in found.items():
        np.testing.assert_allclose(leaf, FOUND[f"expected|{path}"], rtol=2e-5, atol=1e-7, err_msg=path)


def test_only_what_is_trained_has_one():
    mask = tree.map_with_path(lambda path, leaf: path.startswith("head"), PARAMS)
    found = fisher_diagonal(_apply, PARAMS, {}, _batches(7), mask)
    assert found.keys() == {"head/kernel", "head/bias"}
    np.testing.assert_allclose(found["head/bias"], FOUND["expected|head/bias"], rtol=2e-5)


def test_that_of_logistic_regression_is_its_closed_form():
    """The gradient of log p_k by the bias is e_k - p: in expectation its square is p (1 - p); by a weight, times x^2."""
    rng = np.random.default_rng(1)
    x, kernel, bias = rng.normal(size=(9, 1, 1, 4)), rng.normal(size=(4, 3)), rng.normal(size=3)
    params = {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}
    apply = lambda p, s, image, *, train, rng: ({"logits": image.reshape(len(image), -1) @ p["kernel"] + p["bias"]}, s)
    batch = {
        "image": x.astype(np.float32),
        "label": np.zeros(9, np.int32),
        "index": np.arange(9),
        "mask": np.ones(9, np.float32),
    }
    mask = {"kernel": True, "bias": True}
    found = fisher_diagonal(apply, params, {}, [batch], mask)
    logits = x.reshape(9, 4) @ kernel + bias
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(found["bias"], (p * (1 - p)).mean(0), rtol=1e-5)
    np.testing.assert_allclose(found["kernel"], np.einsum("ni,nk->ik", x.reshape(9, 4) ** 2, p * (1 - p)) / 9, rtol=1e-5)


def test_labels_that_are_drawn_give_it_in_the_mean_and_the_same_for_a_seed():
    many = [{key: np.concatenate([value] * 600) for key, value in batch.items()} for batch in _batches(7)]
    many[0]["index"] = np.arange(len(many[0]["index"]))
    draws = [fisher_diagonal(_apply, PARAMS, {}, many, ALL, labels="drawn", seed=seed) for seed in (0, 0, 1)]
    for path, leaf in draws[0].items():
        np.testing.assert_array_equal(leaf, draws[1][path])
        expected = FOUND[f"expected|{path}"]
        np.testing.assert_allclose(leaf, expected, atol=0.1 * expected.max(), err_msg=path)
    assert any(not np.array_equal(leaf, draws[2][path]) for path, leaf in draws[0].items())


def test_no_such_labels_and_no_example_are_clear_errors():
    with pytest.raises(JaxftError, match="labels is 'expect' .did you mean 'expected'"):
        fisher_diagonal(_apply, PARAMS, {}, _batches(7), ALL, labels="expect")
    with pytest.raises(JaxftError, match="no example"):
        fisher_diagonal(_apply, PARAMS, {}, [], ALL)


def test_grouped_convolutions_on_a_mesh_have_one():
    """A depthwise and a pointwise convolution, as networks for phones have them, placed as a run's are: batched by `jax.vmap`
    their gradients are not implemented. Each example's gradients by themselves."""
    rng = np.random.default_rng(2)
    params = {
        "depthwise": jnp.asarray(rng.normal(size=(3, 3, 1, 8)), jnp.float32),
        "pointwise": jnp.asarray(rng.normal(size=(1, 1, 8, 3)), jnp.float32),
    }

    def apply(params, model_state, image, *, train, rng):
        x = jnp.maximum(conv(image, params["depthwise"], padding=1, groups=8), 0)
        return {"logits": conv(x, params["pointwise"]).mean((1, 2))}, model_state

    images = rng.normal(size=(3, 6, 6, 8)).astype(np.float32)
    batch = {"image": images, "label": np.zeros(3, np.int32), "index": np.arange(3), "mask": np.ones(3, np.float32)}
    placed = jax.device_put(params, replicated(make_mesh("", jax.devices()[:1])))
    found = fisher_diagonal(apply, placed, {}, [batch], dict.fromkeys(params, True))

    answers = lambda params, image: jax.nn.log_softmax(apply(params, {}, image[None], train=False, rng=None)[0]["logits"][0])
    expected = {path: np.zeros(leaf.shape) for path, leaf in params.items()}
    for image in images:
        probabilities = np.exp(answers(params, image))
        for place, share in enumerate(probabilities):
            grads = jax.grad(lambda params, image=image, place=place: answers(params, image)[place])(params)
            for path, grad in grads.items():
                expected[path] += share * np.asarray(grad, np.float64) ** 2 / 3
    for path, leaf in found.items():
        np.testing.assert_allclose(leaf, expected[path], rtol=1e-4, atol=1e-7, err_msg=path)
