import jax
import nets
import optax
import pytest

from jaxft import tree
from jaxft.errors import JaxftError
from jaxft.tuning import FreezeSpec, make_mask, trains
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
