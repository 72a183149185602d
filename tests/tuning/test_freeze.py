import jax
import nets
import numpy as np
import optax
import pytest

from jaxft import tree
from jaxft.errors import JaxftError
from jaxft.tuning import FreezeSpec, keep_statistics, make_mask, trains
from jaxft.typing import Trains

PARAMS, _ = nets.init()


def _trained(train, freeze=()):
    mask = make_mask(FreezeSpec.parse(train, freeze), PARAMS, nets.STAGES)
    return {path for path, on in tree.flatten(mask).items() if on}


def test_head_full_and_from_a_stage():
    assert _trained("head") == {"head/kernel", "head/bias"}
    assert _trained("full") == set(tree.paths(PARAMS))
    assert {path.split("/")[0] for path in _trained("from:stage2")} == {"block2", "head"}


def test_terms_add_up_and_freeze_takes_away():
    assert _trained("head, **/bn") == {"head/kernel", "head/bias"} | {path for path in tree.paths(PARAMS) if "/bn/" in path}
    assert _trained(["full"], "stem,**/bias") == {
        path for path in tree.paths(PARAMS) if not path.startswith("stem") and not path.endswith("bias")
    }


@pytest.mark.parametrize(
    ("train", "freeze", "message"),
    [
        ("heads", (), r"'heads' matches no parameter .did you mean 'head'"),
        ("from:stage3", (), r"no stage is called 'stage3' .did you mean 'stage2'"),
        ("head", "head", "leaves nothing to train"),
        ("head", "blok1", "'blok1' matches no parameter .did you mean .*'block1'"),
        ("", (), "nothing is to be trained"),
    ],
)
def test_what_matches_nothing_is_an_error_with_near_misses(train, freeze, message):
    with pytest.raises(JaxftError, match=message):
        _trained(train, freeze)


def test_the_mask_says_which_modules_are_in_train_mode():
    assert trains(make_mask(FreezeSpec(), PARAMS, nets.STAGES)) is True
    found = trains(make_mask(FreezeSpec.parse("head,block1/bn/scale"), PARAMS, nets.STAGES))
    assert isinstance(found, Trains)
    assert found("head")
    assert found("block1/bn")
    assert found("block1")
    assert not found("block1/conv")
    assert not found("stem/bn")
    assert hash(found) == hash(trains(make_mask(FreezeSpec.parse("head,block1/bn/scale"), PARAMS, nets.STAGES)))


def test_statistics_can_be_frozen_where_norms_train():
    spec = FreezeSpec.parse("norms+head", "statistics,stem")
    assert spec.statistics_stay
    assert not FreezeSpec.parse("norms+head", "stem").statistics_stay
    assert _trained("norms+head", "statistics,stem") == _trained("norms+head", "stem")
    with pytest.raises(JaxftError, match="'statistics' can only be frozen"):
        FreezeSpec.parse("head+statistics")


@pytest.mark.parametrize("train", [True, trains(make_mask(FreezeSpec.parse("norms+head"), PARAMS, nets.STAGES))])
def test_norms_with_frozen_statistics_train_on_what_an_evaluation_sees(train):
    """Logits and gradients are those of inference, of scales and biases too; dropout of a trained head stays on."""
    params, model_state = nets.init()
    image = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))

    def logits(params, apply, train):
        outputs, state = apply(params, model_state, image, train=train, rng=jax.random.key(2))
        return outputs["logits"].sum(), (outputs["logits"], state)

    plain = nets.make_apply(dropout=0.0)
    found, (ours, state) = jax.grad(logits, has_aux=True)(params, keep_statistics(plain), train)
    expected, (theirs, _) = jax.grad(logits, has_aux=True)(params, plain, False)
    jax.tree.map(np.testing.assert_array_equal, (found, ours, state), (expected, theirs, model_state))
    assert np.abs(found["stem"]["bn"]["scale"]).min() > 0
    assert not np.array_equal(logits(params, plain, train)[1][0], theirs)  # the batch's own would be others
    dropping = nets.make_apply(dropout=0.5)
    assert not np.array_equal(logits(params, keep_statistics(dropping), train)[1][0], theirs)
    np.testing.assert_array_equal(logits(params, keep_statistics(dropping), False)[1][0], theirs)


def test_optax_masked_lets_frozen_gradients_through_and_freeze_updates_does_not():
    mask = make_mask(FreezeSpec.parse("head"), PARAMS, nets.STAGES)
    grads = jax.tree.map(lambda leaf: leaf + 1, PARAMS)
    tx = optax.masked(optax.sgd(0.1), mask)
    leaked, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    assert (leaked["stem"]["conv"]["bias"] == grads["stem"]["conv"]["bias"]).all()
    from jaxft.tuning import freeze_updates

    tx = freeze_updates(optax.sgd(0.1), mask)
    updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    assert not updates["stem"]["conv"]["bias"].any()
    assert updates["head"]["bias"].any()
