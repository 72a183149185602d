"""Which step is the best so far, what was it before, and the figures that are not logged yet."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import nets
import pytest

from jaxft.metrics import classification_metrics, merge, model_outputs, to_floats, training_metrics
from jaxft.standing import Standing

SELECTION = {"monitor": "accuracy", "mode": "max", "min_delta": 0.01}


def test_a_gain_must_exceed_min_delta_and_ends_the_wait():
    standing = Standing("phase1")
    values = (0.5, 0.505, float("nan"), 0.6)
    assert [standing.judge({"accuracy": value}, step, **SELECTION) for step, value in enumerate(values, 1)] == [
        True,
        False,
        False,
        True,
    ]
    assert (standing.best_step, standing.best, standing.stale) == (4, 0.6, 0)
    assert not standing.judge({"accuracy": 0.6}, 5, **SELECTION)
    assert standing.stale == 1


def test_less_may_be_better_and_nan_is_never_the_best():
    standing = Standing("phase1")
    selection = {"monitor": "loss", "mode": "min", "min_delta": 0.0}
    assert not standing.judge({"loss": float("nan")}, 1, **selection)
    assert (standing.best_step, standing.best, standing.earlier, standing.stale) == (None, None, [], 1)
    assert standing.judge({"loss": 2.0}, 2, **selection)
    assert (standing.best_step, standing.best, standing.stale) == (2, -2.0, 0)
    assert not standing.judge({"loss": 3.0}, 3, **selection)
    assert not standing.judge({"loss": float("nan")}, 4, **selection)
    assert (standing.best_step, standing.best, standing.stale) == (2, -2.0, 2)
    assert standing.judge({"loss": 1.0}, 5, **selection)
    assert standing.best_step == 5


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["loss", "accuracy", "top5"])
def test_an_evaluation_with_any_figure_that_is_not_finite_is_never_the_best_not_even_as_the_first(name, value):
    # With NaN for logits the accuracy is a number still.
    broken = {"loss": 0.1, "accuracy": 0.9, "top5": 1.0, name: value}
    for monitor, mode in (("accuracy", "max"), ("loss", "min")):
        standing, selection = Standing("phase1"), {"monitor": monitor, "mode": mode, "min_delta": 0.0}
        assert not standing.judge(broken, 1, **selection)
        assert (standing.best_step, standing.best, standing.stale) == (None, None, 1)
        assert standing.judge({"loss": 5.0, "accuracy": 0.2, "top5": 0.4}, 2, **selection)
        assert not standing.judge(broken, 3, **selection)
        assert (standing.best_step, standing.earlier) == (2, [])


def test_a_best_checkpoint_that_is_lost_gives_its_place_back_to_the_one_before():
    standing = Standing("phase1")
    for step, value in ((1, 0.5), (2, 0.3), (3, 0.6), (4, 0.6), (5, 0.8)):
        standing.judge({"accuracy": value}, step, **SELECTION)
    assert (standing.best_step, standing.best, standing.earlier) == (5, 0.8, [[1, 0.5], [3, 0.6]])
    standing.forget(4)  # never the best: nothing changes
    assert (standing.best_step, standing.best, standing.earlier) == (5, 0.8, [[1, 0.5], [3, 0.6]])
    standing.forget(5)
    assert (standing.best_step, standing.best, standing.earlier) == (3, 0.6, [[1, 0.5]])
    assert not standing.judge({"accuracy": 0.55}, 6, **SELECTION)
    standing.forget(3)
    assert (standing.best_step, standing.best, standing.earlier) == (1, 0.5, [])
    standing.forget(1)
    assert (standing.best_step, standing.best, standing.earlier) == (None, None, [])
    standing.forget(1)
    assert standing.judge({"accuracy": 0.1}, 7, **SELECTION)
    assert (standing.best_step, standing.best) == (7, 0.1)


def test_a_lost_checkpoint_that_was_the_best_once_never_is_again():
    standing = Standing("phase1")
    for step, value in ((1, 0.5), (2, 0.6), (3, 0.7)):
        standing.judge({"accuracy": value}, step, **SELECTION)
    standing.forget(2)
    assert (standing.best_step, standing.earlier) == (3, [[1, 0.5]])
    standing.forget(3)
    assert (standing.best_step, standing.best) == (1, 0.5)


def test_what_was_the_best_before_comes_back_through_json():
    standing = Standing("phase1")
    for step, value in ((1, 0.1), (2, 0.2 + 0.1), (3, 0.7)):
        standing.judge({"accuracy": value}, step, **SELECTION)
    again = Standing(**json.loads(json.dumps(dataclasses.asdict(standing))))
    assert again == standing
    again.forget(3)
    assert (again.best_step, again.best) == (2, 0.2 + 0.1)
    assert type(again.best_step) is int


def test_the_best_stands_in_the_next_phase_and_the_wait_begins_anew():
    standing = Standing("phase1")
    for step, value in ((1, 0.5), (2, 0.6), (3, 0.2)):
        standing.judge({"accuracy": value}, step, **SELECTION)
    standing.enter("phase2")
    assert (standing.phase, standing.stale, standing.best_step, standing.best) == ("phase2", 0, 2, 0.6)
    assert standing.earlier == [[1, 0.5]]


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_figures_not_logged_yet_come_back_exactly_through_json(steps):
    kind = training_metrics(classification_metrics(nets.CLASSES))
    found = []
    for step in range(steps):
        batch = nets.make_batch(step)
        logits = batch["image"][:, 0, 0, :1] * jnp.array([[0.1, 0.2, 0.3, 0.4]])
        outputs = model_outputs(logits, batch["label"], logits[:, 0] / 3, batch["mask"])
        finite = jnp.array([True, step == 0, step != 2])  # steps that were skipped are among them
        found.append(kind.single_from_model_output(**outputs, grad_norm=logits[0, 0], finite=finite))
    standing = Standing("phase1")
    standing.collect(found)
    again = Standing("phase1", collected=json.loads(json.dumps(standing.collected))).collection(kind)
    if not steps:
        assert again == []
        return
    # As the loop does at a log line: on the host.
    expected = merge(jax.device_get(found))
    assert to_floats(again[0]) == to_floats(expected)
    assert int(expected.nonfinite.steps) == steps - 1
    assert jax.tree.leaves(again[0]) == jax.tree.leaves(expected)
    assert [leaf.dtype for leaf in jax.tree.leaves(again[0])] == [leaf.dtype for leaf in jax.tree.leaves(found[0])]
