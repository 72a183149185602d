"""Averages of weights and statistics: over dozens of steps what timm's ModelEmaV3 and torch's AveragedModel keep."""

from pathlib import Path

import jax
import jax.numpy as jnp
import nets
import numpy as np
import optax
import pytest

from jaxft import tree
from jaxft.errors import JaxftError
from jaxft.metrics import classification_metrics, training_metrics
from jaxft.train import averaged_part, create_state, ema, eval_weights, make_train_step, swa
from jaxft.tuning import FreezeSpec, make_mask

pytestmark = pytest.mark.usefixtures("quick_compiles")

METRICS = training_metrics(classification_metrics(nets.CLASSES))
GIVEN = dict(np.load(Path(__file__).parent / "fixtures" / "average.npz"))
#: The averages of scripts/make_average_fixtures.py, as ours are called.
AVERAGES = {
    "ema": ema(0.9),
    "ema_start": ema(0.8, start=11),
    "ema_warmup": ema(0.95, warmup_power=2 / 3),
    "ema_power": ema(0.9, warmup_power=0.75, warmup_gamma=3.0, min_decay=0.5),
    "ema_late_warmup": ema(0.999, warmup_power=1.0, start=7),
    "swa": swa(20, 5),
    "swa_each": swa(7, 1),
    "swa_late": swa(59, 3),
    "swa_from_the_start": swa(0, 8),
}
#: Where the running statistics stand in torch's vector.
STATISTICS = slice(36, 42)


def _halves(vector):
    weights = jnp.asarray(np.delete(vector, STATISTICS))
    return {"net": {"norm": {"scale": weights}}}, {"batch_stats": {"net": {"norm": {"mean": jnp.asarray(vector[STATISTICS])}}}}


def _replay(params, model_state, image, *, train, rng):
    """Its statistics are what the batch says; with `_to_target` and a rate of 1 its weights too."""
    return {"logits": jnp.zeros((1, nets.CLASSES))}, {"batch_stats": {"net": {"norm": {"mean": image[0]}}}}


def _to_target(outputs, batch, *, forward, params):
    return 0.5 * ((params["net"]["norm"]["scale"] - batch["target"]) ** 2).sum()[None]


@pytest.mark.parametrize("name", AVERAGES)
def test_the_step_keeps_the_averages_of_timm_and_torch_along_their_own_run(name):
    assert sorted(AVERAGES) == sorted(key.removeprefix("average/") for key in GIVEN if key.startswith("average/"))
    params, model_state = _halves(GIVEN["network"][0])
    mask, tx = jax.tree.map(lambda _: True, params), optax.sgd(1.0)
    state = create_state(params, model_state, tx, mask, rng=jax.random.key(0), ema=True)
    step = jax.jit(make_train_step(_replay, _to_target, tx, mask, metrics=METRICS, average=AVERAGES[name]))
    for number, (network, average) in enumerate(zip(GIVEN["network"][1:], GIVEN[f"average/{name}"], strict=True), 1):
        weights, statistics = _halves(network)
        batch = {
            "image": statistics["batch_stats"]["net"]["norm"]["mean"][None],
            "target": weights["net"]["norm"]["scale"],
            "label": jnp.zeros(1, jnp.int32),
            "mask": jnp.ones(1),
        }
        state, _ = step(state, batch)
        np.testing.assert_allclose(state.params["net"]["norm"]["scale"], weights["net"]["norm"]["scale"], atol=1e-6)
        expected = _halves(average)
        for found, wanted in zip(jax.tree.leaves(eval_weights(state)), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6, err_msg=f"step {number}")


def test_until_an_average_begins_it_is_the_network_bit_for_bit():
    params, model_state = nets.init()
    mask = make_mask(FreezeSpec.parse("head,stage2"), params, nets.STAGES)
    tx = optax.sgd(0.1)
    for average in (ema(0.9, start=3), swa(3, 2)):
        state = create_state(params, model_state, tx, mask, rng=jax.random.key(0), ema=True)
        step = jax.jit(make_train_step(nets.make_apply(), _cross_entropy, tx, mask, metrics=METRICS, average=average))
        for number in range(3):
            state, _ = step(state, nets.make_batch(number))
            for found, wanted in zip(
                jax.tree.leaves(state.ema),
                jax.tree.leaves(averaged_part(state.params, state.model_state, mask)),
                strict=True,
            ):
                np.testing.assert_array_equal(found, wanted)


def _cross_entropy(outputs, batch):
    return optax.softmax_cross_entropy_with_integer_labels(outputs["logits"], batch["label"])


def test_an_average_is_of_trained_leaves_and_of_statistics_of_norms_that_train():
    params, model_state = nets.init()
    mask = make_mask(FreezeSpec.parse("head,block1/bn/bias"), params, nets.STAGES)
    assert sorted(tree.paths(averaged_part(params, model_state, mask))) == [
        "model_state/batch_stats/block1/bn/mean",
        "model_state/batch_stats/block1/bn/var",
        "params/block1/bn/bias",
        "params/head/bias",
        "params/head/kernel",
    ]
    mask = make_mask(FreezeSpec.parse("head"), params, nets.STAGES)
    assert "model_state" not in averaged_part(params, model_state, mask)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ema(1.0), "ema_decay is 1.0: it must lie between 0 and 1"),
        (lambda: ema(0.9, start=-1), "ema_start is -1"),
        (lambda: ema(0.9, warmup_power=0.0), "ema_warmup_power is 0.0: it must be positive"),
        (lambda: ema(0.9, warmup_gamma=0.0), "ema_warmup_gamma is 0.0: it must be positive"),
        (lambda: ema(0.9, min_decay=0.95), r"ema_min_decay is 0.95: it must lie between 0 and ema_decay \(0.9\)"),
        (lambda: swa(-1, 2), "swa_start is -1"),
        (lambda: swa(3, 0), "swa_every is 0: it must be at least one step"),
    ],
)
def test_numbers_out_of_range_are_clear_errors(make, said):
    with pytest.raises(JaxftError, match=said):
        make()
