"""Statistics computed anew: what torch's update_bn makes of the same weights and batches."""

from pathlib import Path

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest

from jaxft import models, tree
from jaxft.errors import JaxftError
from jaxft.train import update_statistics
from jaxft.tuning import FreezeSpec, make_mask, trains

pytestmark = pytest.mark.usefixtures("quick_compiles")

GIVEN = dict(np.load(Path(__file__).parent / "fixtures" / "average.npz"))
PARAMS, STATE = nets.init()


def _torchs(params, model_state, image, *, train, rng):
    """The network of scripts/make_average_fixtures.py as far as its BatchNorm, with torch's momentum and unbiased variance."""
    x = jax.lax.conv_general_dilated(image, params["kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    rows = (x + params["bias"]).reshape(-1, 3)
    old = model_state["batch_stats"]["norm"]
    new = {"mean": 0.9 * old["mean"] + 0.1 * rows.mean(0), "var": 0.9 * old["var"] + 0.1 * rows.var(0, ddof=1)}
    return {}, {"batch_stats": {"norm": new}}


def test_they_are_those_of_torchs_update_bn():
    params = {
        "kernel": jnp.asarray(GIVEN["weights/0.weight"].transpose(2, 3, 1, 0)),
        "bias": jnp.asarray(GIVEN["weights/0.bias"]),
    }
    before = {"batch_stats": {"norm": {name: jnp.asarray(GIVEN[f"weights/1.running_{name}"]) for name in ("mean", "var")}}}
    batches = [{"image": jnp.asarray(batch.transpose(0, 2, 3, 1))} for batch in GIVEN["batches"]]
    found = update_statistics(_torchs, params, before, batches)["batch_stats"]["norm"]
    for name in ("mean", "var"):
        np.testing.assert_allclose(found[name], GIVEN[f"updated/{name}"], rtol=2e-6, atol=1e-6)
        assert not np.allclose(found[name], before["batch_stats"]["norm"][name], rtol=0.05)


def test_of_a_network_of_ours_they_are_the_means_of_what_each_batch_has_and_frozen_norms_keep_theirs():
    model = models.build("resnet10t", 3, size=32)
    params, state = jax.jit(model.init)(jax.random.key(0))
    state = jax.tree.map(lambda leaf: leaf + 0.5, state)
    mask = make_mask(FreezeSpec.parse("from:stage3"), params, model.stages)
    on = trains(mask)
    batches = [{"image": jax.random.normal(jax.random.key(number), (6, 32, 32, 3)) + number} for number in range(3)]
    found = tree.flatten(update_statistics(model.apply, params, state, batches, train=on))
    # By hand: a step moves statistics s to 0.9 s + 0.1 b.
    step = jax.jit(lambda image: model.apply(params, state, image, train=on, rng=jax.random.key(0))[1])
    moved = [tree.flatten(step(batch["image"])) for batch in batches]
    changed = 0
    for path, old in tree.flatten(state).items():
        if on(path.removeprefix("batch_stats/").rpartition("/")[0]):
            own = np.mean([(np.float64(after[path]) - 0.9 * np.float64(old)) / 0.1 for after in moved], axis=0)
            np.testing.assert_allclose(found[path], own, rtol=1e-4, atol=1e-4, err_msg=path)
            changed += 1
        else:
            np.testing.assert_array_equal(found[path], old)
    assert 0 < changed < len(found)


def test_without_norms_that_train_nothing_is_run_and_nothing_changes():
    on = trains(make_mask(FreezeSpec.parse("head"), PARAMS, nets.STAGES))
    assert update_statistics(nets.make_apply(), PARAMS, STATE, iter(()), train=on) is STATE


def test_no_batch_and_statistics_that_do_not_move_are_clear_errors():
    with pytest.raises(JaxftError, match="there is not one batch to compute statistics over"):
        update_statistics(nets.make_apply(), PARAMS, STATE, [])
    with pytest.raises(JaxftError, match="statistics of the network do not move in train mode"):
        update_statistics(lambda params, state, image, **options: ({}, state), PARAMS, STATE, [nets.make_batch()])
