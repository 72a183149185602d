"""Losses that compare rows of a batch, against lightly, pytorch-metric-learning and the papers' formulas, in float64.

`scripts/make_ssl_fixtures.py` wrote what those libraries say.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxft import losses
from jaxft.errors import JaxftError
from jaxft.losses.self_supervised import dino, masked_autoencoder, simclr, sinkhorn, supervised_contrastive
from jaxft.parallel import make_mesh, put_batch

pytestmark = pytest.mark.usefixtures("quick_compiles")

FIXTURE = Path(__file__).parent / "fixtures" / "self_supervised.npz"


@pytest.fixture(scope="module")
def theirs():
    with np.load(FIXTURE) as file:
        return dict(file)


@pytest.fixture
def wide():
    with jax.enable_x64(True):
        yield


def _mean(loss, batch, **options):
    """The mean over rows, and its derivative by the projections."""
    return jax.jit(jax.value_and_grad(lambda rows: loss({"logits": rows}, batch, **options).mean()))


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_simclr_is_the_nt_xent_of_lightly_and_of_pytorch_metric_learning(theirs, temperature):
    value, gradient = _mean(simclr, {"index": theirs["index"]}, temperature=temperature)(theirs["rows"])
    np.testing.assert_allclose(value, theirs[f"ntxent/{temperature}"], rtol=1e-12)
    np.testing.assert_allclose(value, theirs[f"ntxent/{temperature}/lightly"], rtol=1e-6)  # which adds a small number
    np.testing.assert_allclose(gradient, theirs[f"ntxent/{temperature}/gradient"], atol=1e-12)


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_supervised_contrastive_is_that_of_pytorch_metric_learning(theirs, temperature):
    value, gradient = _mean(supervised_contrastive, {"label": theirs["label"]}, temperature=temperature)(theirs["rows"])
    np.testing.assert_allclose(value, theirs[f"supcon/{temperature}"], rtol=1e-12)
    np.testing.assert_allclose(gradient, theirs[f"supcon/{temperature}/gradient"], atol=1e-12)


def _formula(rows, same, temperature):
    """Equation 2 of Khosla et al. (2020), row by row."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    similar = unit @ unit.T / temperature
    found = np.zeros(len(rows))
    for i in range(len(rows)):
        others = [a for a in range(len(rows)) if a != i]
        positives = [p for p in others if same[i] == same[p]]
        for p in positives:
            found[i] -= np.log(np.exp(similar[i, p]) / np.exp(similar[i, others]).sum()) / len(positives)
    return found


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("views", [2, 3, 4])
def test_every_row_has_its_own_loss_also_of_more_views_than_two(views):
    rows = np.random.default_rng(views).normal(size=(3 * views, 4))
    index = np.tile([7, 0, 3], views)
    expected = _formula(rows, index, 0.2)
    np.testing.assert_allclose(simclr({"logits": rows}, {"index": index}, temperature=0.2), expected, rtol=1e-12)
    found = supervised_contrastive({"logits": rows}, {"label": index}, temperature=0.2)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.usefixtures("wide")
def test_a_row_that_has_no_other_view_and_a_class_of_one_row_have_loss_0_and_no_gradient_of_their_own():
    rows = np.random.default_rng(0).normal(size=(3, 4))
    for loss, key in ((simclr, "index"), (supervised_contrastive, "label")):
        found = loss({"logits": rows}, {key: np.array([1, 1, 2])})
        assert found[2] == 0
        assert (found[:2] > 0).all()
        alone, gradient = _mean(loss, {key: np.array([5])})(rows[:1])
        assert alone == 0
        np.testing.assert_array_equal(gradient, np.zeros((1, 4)))


def _teacher(logits):
    return lambda image, *, train, params: {"logits": logits if params == "average" else None}


def _dino(outputs, batch, logits, **options):
    return dino(outputs, {"image": np.zeros((len(logits), 1)), **batch}, forward=_teacher(logits), average="average", **options)


@pytest.mark.usefixtures("wide")
def test_sinkhorn_is_lightlys(theirs):
    found = sinkhorn(jnp.asarray(theirs["teacher"] / 0.07), jnp.ones(8, bool), steps=3)
    np.testing.assert_allclose(found, theirs["sinkhorn"], rtol=1e-10)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-12)


@pytest.mark.usefixtures("wide")
def test_sinkhorn_uses_all_prototypes_alike_where_a_softmax_would_use_one():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(64, 8)) + 30 * np.eye(8)[3])
    assert (jax.nn.softmax(logits)[:, 3] > 0.99).all()
    found = sinkhorn(logits, jnp.ones(64, bool), steps=30)
    np.testing.assert_allclose(found.sum(0), 64 / 8, rtol=1e-3)


@pytest.mark.usefixtures("wide")
def test_dino_is_the_papers_pseudo_code_on_lightlys_shares(theirs):
    def mean(student):
        batch = {"index": np.tile(np.arange(4), 2)}
        options = {"student_temperature": 0.1, "teacher_temperature": 0.07}
        return _dino({"logits": student}, batch, jnp.asarray(theirs["teacher"]), **options).mean()

    value, gradient = jax.jit(jax.value_and_grad(mean))(jnp.asarray(theirs["student"]))
    np.testing.assert_allclose(value, theirs["dino"], rtol=1e-10)
    np.testing.assert_allclose(gradient, theirs["dino/gradient"], atol=1e-12)


@pytest.mark.usefixtures("wide")
def test_dino_tells_a_row_the_mean_of_the_other_views_and_not_its_own():
    rng = np.random.default_rng(2)
    teacher, student, index = rng.normal(size=(6, 5)), rng.normal(size=(6, 5)), np.tile([4, 9], 3)
    shares = np.asarray(sinkhorn(jnp.asarray(teacher / 0.07), jnp.ones(6, bool), steps=3))
    log_p = np.asarray(jax.nn.log_softmax(student / 0.1))
    told = [np.mean([shares[j] for j in range(6) if index[j] == index[i] and j != i], axis=0) for i in range(6)]
    found = _dino({"logits": student}, {"index": index}, jnp.asarray(teacher))
    np.testing.assert_allclose(found, -(np.array(told) * log_p).sum(1), rtol=1e-12)


def test_no_gradient_reaches_the_teacher():
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    said = jax.jit(jax.grad(lambda logits: _dino({"logits": rows}, {"index": np.array([0, 1, 0, 1])}, logits).sum()))
    gradient = said(rows)
    np.testing.assert_array_equal(gradient, np.zeros((4, 3)))


_OF_ROWS = {
    "simclr": (simclr, {}),
    "supervised_contrastive": (supervised_contrastive, {}),
    "dino": (lambda outputs, batch: _dino(outputs, batch, outputs["logits"]), {}),
}


def _batch(rows, seed=0):
    rng = np.random.default_rng(seed)
    half = np.arange(rows // 2)
    return rng.normal(size=(rows, 6)).astype(np.float32), {
        "image": np.zeros((rows, 1), np.float32),
        "index": np.tile(half, 2).astype(np.int32),
        "label": np.tile(half % 3, 2).astype(np.int32),
        "mask": np.ones(rows, np.float32),
    }


@pytest.mark.parametrize("name", _OF_ROWS)
@pytest.mark.parametrize("padding", [np.nan, 1e30])
def test_padded_rows_change_nothing(name, padding):
    loss, _ = _OF_ROWS[name]
    logits, batch = _batch(12)
    spare = {key: np.concatenate([value, value[:4]]) for key, value in batch.items()}
    spare["mask"][12:] = 0
    padded = np.concatenate([logits, np.full((4, 6), padding, np.float32)])

    def summed(rows, batch):
        found = loss({"logits": rows}, batch)
        return jnp.where(batch["mask"] > 0, found, 0).sum(), found

    say = jax.jit(jax.value_and_grad(summed, has_aux=True))
    (value, rows), gradient = say(logits, batch)
    (same, padded_rows), padded_gradient = say(padded, spare)
    np.testing.assert_allclose(same, value, rtol=1e-6)
    np.testing.assert_allclose(padded_rows[:12], rows, rtol=1e-5)
    np.testing.assert_allclose(padded_gradient[:12], gradient, atol=1e-6)
    np.testing.assert_array_equal(padded_gradient[12:], np.zeros((4, 6)))


@pytest.mark.parametrize("name", _OF_ROWS)
def test_eight_devices_say_what_one_says(name):
    loss, _ = _OF_ROWS[name]
    logits, batch = _batch(16)
    step = jax.jit(jax.value_and_grad(lambda batch: loss({"logits": batch["rows"]}, batch).mean(), allow_int=True))
    placed = put_batch({**batch, "rows": logits}, make_mesh("8x1x1", jax.devices()[:8]))
    alone = put_batch({**batch, "rows": logits}, make_mesh("1x1x1", jax.devices()[:1]))
    (many, many_gradient), (one, one_gradient) = step(placed), step(alone)
    np.testing.assert_allclose(many, one, rtol=1e-6)
    np.testing.assert_allclose(many_gradient["rows"], one_gradient["rows"], atol=1e-6)


def test_the_length_of_a_projection_does_not_count_and_one_of_length_0_has_a_gradient():
    logits, batch = _batch(8)
    lengths = np.linspace(0.1, 9, 8, dtype=np.float32)[:, None]
    np.testing.assert_allclose(simclr({"logits": lengths * logits}, batch), simclr({"logits": logits}, batch), rtol=1e-4)
    logits[0] = 0
    gradient = jax.jit(jax.grad(lambda rows: simclr({"logits": rows}, batch).sum()))(logits)
    assert np.isfinite(gradient).all()


def test_a_masked_autoencoder_is_judged_by_what_it_did_not_see():
    target = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    guess = target.copy()
    guess[0, 0] += 5  # seen
    guess[0, 2] += [1, 2, 3, 4]
    masked = np.array([[0, 1, 1], [1, 0, 0]], np.float32)
    found = masked_autoencoder({"logits": guess.reshape(2, 12), "target": target, "masked": masked}, {})
    np.testing.assert_allclose(found, [(1 + 4 + 9 + 16) / 4 / 2, 0])


def test_what_does_not_fit_is_one_clear_error():
    rows = np.ones((2, 3), np.float32)
    with pytest.raises(JaxftError, match="no `index`"):
        simclr({"logits": rows}, {"label": np.zeros(2, int)})
    with pytest.raises(JaxftError, match=r"one class an example, not labels of shape \[2, 4\]"):
        supervised_contrastive({"logits": rows}, {"label": np.ones((2, 4))})
    with pytest.raises(JaxftError, match="config.model.head='mae'"):
        masked_autoencoder({"logits": rows}, {})
    for loss, option in ((simclr, "temperature"), (supervised_contrastive, "temperature"), (_dino, "teacher_temperature")):
        more = (rows,) if loss is _dino else ()
        with pytest.raises(JaxftError, match=f"{option} is 0: it must be positive"):
            loss({"logits": rows}, {"index": np.zeros(2, int), "label": np.zeros(2, int)}, *more, **{option: 0})


def test_they_are_losses_by_name():
    loss = losses.resolve("simclr", temperature=0.3)
    logits, batch = _batch(4)
    np.testing.assert_array_equal(loss({"logits": logits}, batch), simclr({"logits": logits}, batch, temperature=0.3))
    assert losses.wanted(losses.resolve("dino")) == ("forward", "average")
    with pytest.raises(JaxftError, match="takes no option 'temprature'.*temperature"):
        losses.resolve("simclr", temprature=0.3)
