import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import log_loss

from jaxft import losses
from jaxft.errors import JaxftError

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(7, 5)) * 3
LABELS = RNG.integers(0, 5, 7)
BATCH = {"label": jnp.asarray(LABELS, jnp.int32)}
OUTPUTS = {"logits": jnp.asarray(LOGITS, jnp.float32)}


def _log_p(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_cross_entropy_equals_scikit_learn():
    found = losses.softmax_cross_entropy(OUTPUTS, BATCH)
    assert found.shape == (7,)
    np.testing.assert_allclose(found.mean(), log_loss(LABELS, np.exp(_log_p(LOGITS)), labels=range(5)), rtol=1e-5)


def test_label_smoothing_is_torchs():
    # torch: (1 - e) * nll + e * mean over classes of -log p
    expected = 0.9 * -_log_p(LOGITS)[np.arange(7), LABELS] + 0.1 * -_log_p(LOGITS).mean(-1)
    np.testing.assert_allclose(losses.softmax_cross_entropy(OUTPUTS, BATCH, label_smoothing=0.1), expected, rtol=1e-5)


def test_soft_labels_of_one_hot_equal_hard_ones():
    soft = {"label": jax.nn.one_hot(BATCH["label"], 5)}
    np.testing.assert_allclose(
        losses.softmax_cross_entropy(OUTPUTS, soft), losses.softmax_cross_entropy(OUTPUTS, BATCH), rtol=1e-6
    )


def test_binary_cross_entropy_is_stable_and_equals_float64():
    logits = np.concatenate([LOGITS, [[1000.0, -1000, 0, 50, -50]]])
    labels = (RNG.random(logits.shape) > 0.5).astype(np.float64)
    labels[-1] = [1, 0, 1, 1, 0]
    expected = (np.maximum(logits, 0) - logits * labels + np.log1p(np.exp(-np.abs(logits)))).mean(-1)
    found = losses.binary_cross_entropy(
        {"logits": jnp.asarray(logits, jnp.float32)}, {"label": jnp.asarray(labels, jnp.float32)}
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_focal_loss_without_focus_is_cross_entropy():
    np.testing.assert_allclose(losses.focal(OUTPUTS, BATCH, gamma=0.0), losses.softmax_cross_entropy(OUTPUTS, BATCH), rtol=1e-5)
    p = np.exp(_log_p(LOGITS))[np.arange(7), LABELS]
    np.testing.assert_allclose(losses.focal(OUTPUTS, BATCH, gamma=2.0, alpha=0.5), -0.5 * (1 - p) ** 2 * np.log(p), rtol=1e-4)


def test_sigmoid_focal_loss_equals_its_formula():
    labels = (RNG.random((7, 5)) > 0.5).astype(np.float64)
    p = 1 / (1 + np.exp(-LOGITS))
    p_true = np.where(labels > 0, p, 1 - p)
    weight = np.where(labels > 0, 0.25, 0.75)
    found = losses.sigmoid_focal(OUTPUTS, {"label": jnp.asarray(labels, jnp.float32)})
    np.testing.assert_allclose(found, (-weight * (1 - p_true) ** 2 * np.log(p_true)).mean(-1), rtol=1e-4)


def test_mean_squared_error():
    label = jnp.asarray(RNG.normal(size=7), jnp.float32)
    found = losses.mean_squared_error({"logits": OUTPUTS["logits"][:, :1]}, {"label": label})
    np.testing.assert_allclose(found, (LOGITS[:, 0] - np.asarray(label)) ** 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sofmax_cross_entropy", {}, "did you mean 'softmax_cross_entropy'"),
        ("no_such_module:loss", {}, "cannot import 'no_such_module'"),
        ("jaxft.losses:fokal", {}, "has no 'fokal' .did you mean 'focal'"),
        ("focal", {"gama": 1}, "takes no option 'gama' .did you mean 'gamma'"),
        ("jaxft.losses:annotations", {}, "is not a function"),
    ],
)
def test_a_loss_that_is_not_there_is_a_clear_error(name, options, message):
    with pytest.raises(JaxftError, match=message):
        losses.resolve(name, **options)


def test_options_are_bound_and_functions_pass_through():
    bound = losses.resolve("jaxft.losses:focal", gamma=0.0)
    np.testing.assert_allclose(bound(OUTPUTS, BATCH), losses.softmax_cross_entropy(OUTPUTS, BATCH), rtol=1e-5)
    assert losses.resolve(losses.focal) is losses.focal
