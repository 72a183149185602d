"""Augmentations of the user's own, "module:function", in a list with ours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from own_changes import shift

from jaxft.augment import example_keys, parse
from jaxft.augment.pixels import random_invert
from jaxft.cli.config import read_config
from jaxft.errors import JaxftError
from jaxft.plan import make_plan

pytestmark = pytest.mark.usefixtures("quick_compiles")

IMAGES = np.random.default_rng(0).integers(0, 200, (5, 8, 8, 3), np.uint8)
BATCH = {
    "image": IMAGES,
    "label": np.arange(5, dtype=np.int32),
    "index": np.arange(10, 15, dtype=np.int32),
    "shown": np.array([0, 1, 0, 2, 0], np.int32),
}


def test_it_runs_in_its_place_with_its_own_key_and_its_options():
    recipe = parse("random_flip(0.0), own_changes:shift(20), random_invert(p=0.5)")
    assert [str(one) for one in recipe.operations][1] == "own_changes:shift(most=20, p=1.0)"
    assert recipe.random
    found = recipe.images(BATCH, seed=7, size=8)
    keys = example_keys(7, BATCH["shown"], BATCH["index"])
    for key, image, changed in zip(keys, IMAGES, found, strict=True):
        expected = shift(jax.random.fold_in(key, 1), jnp.asarray(image), 20)
        expected = random_invert(jax.random.fold_in(key, 2), expected, p=0.5)
        np.testing.assert_allclose(changed, expected, rtol=1e-6)


def test_what_an_example_gets_does_not_depend_on_its_batch():
    recipe = parse("own_changes:shift(p=0.5)")
    whole = recipe.batch(BATCH, seed=1, size=8, classes=5)["image"]
    part = recipe.batch({key: value[3:] for key, value in BATCH.items()}, seed=1, size=8, classes=5)["image"]
    np.testing.assert_array_equal(whole[3:], part)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("own_changes:shft", "the augmentation 'own_changes:shft': 'own_changes' has no 'shft' (did you mean 'shift'?)"),
        ("own_chnges:shift", "the augmentation 'own_chnges:shift': cannot import 'own_chnges'"),
        ("own_changes:number", "the augmentation 'own_changes:number' is not a function"),
        ("own_changes:shift(mst=3)", "takes no option 'mst' (did you mean 'most'?); it takes (most=10.0, p=1.0)"),
        ("own_changes:shift(p=2)", "p is 2: a probability lies between 0 and 1"),
        ("own_changes:shift(jax)", "the options of 'own_changes:shift(jax)' must be numbers"),
        ("own_changes:shift, own_changes:shift(3)", "'own_changes:shift' stands in the list twice"),
        ("random_flip, own_changes:halve", "the augmentation 'own_changes:halve' made [4, 8, 3] of an image [8, 8, 3]"),
        ("own_changes:shift('much')", "cannot work"),
        ("own_changes:shift +", "cannot be read"),
    ],
)
def test_what_does_not_fit_is_said_before_a_run(text, said):
    with pytest.raises(JaxftError) as raised:
        parse(text).check(3)
    assert said in str(raised.value)


def test_kept_features_do_not_go_with_it(recipe):
    config = read_config(str(recipe), ["--config.features.cache=True", "--config.input.augment=crop_flip, own_changes:shift"])
    with pytest.raises(JaxftError, match="config.features.cache keeps .*, and cannot see when 'own_changes:shift' changes"):
        make_plan(config, weights=False)
