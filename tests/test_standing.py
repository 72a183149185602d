import json

import jax
import jax.numpy as jnp
import nets
import pytest

from jaxft.metrics import classification_metrics, merge, model_outputs, to_floats, with_grad_norm
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
    assert (standing.best_step, standing.best) == (1, None)  # there is nothing else to keep yet
    assert standing.judge({"loss": 2.0}, 2, **selection)
    assert not standing.judge({"loss": 3.0}, 3, **selection)
    assert standing.best_step == 2


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_figures_not_logged_yet_come_back_exactly_through_json(steps):
    kind = with_grad_norm(classification_metrics(nets.CLASSES))
    found = []
    for step in range(steps):
        batch = nets.make_batch(step)
        logits = batch["image"][:, 0, 0, :1] * jnp.array([[0.1, 0.2, 0.3, 0.4]])
        outputs = model_outputs(logits, batch["label"], logits[:, 0] / 3, batch["mask"])
        found.append(kind.single_from_model_output(**outputs, grad_norm=logits[0, 0]))
    standing = Standing("phase1")
    standing.collect(found)
    again = Standing("phase1", collected=json.loads(json.dumps(standing.collected))).collection(kind)
    if not steps:
        assert again == []
        return
    # As the loop does at a log line: on the host.
    assert to_floats(again[0]) == to_floats(merge(jax.device_get(found)))
