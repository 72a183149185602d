"""Lists of augmentations: read as they are written, split by where they run, and the same for any batch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxft import augment
from jaxft.augment import AUGMENTS, OPERATIONS, Augment, Window, example_keys, mixed_batch, parse, soft_label
from jaxft.augment.warp import flipped, rotated, warp
from jaxft.errors import JaxftError
from jaxft.parallel import make_mesh

pytestmark = pytest.mark.usefixtures("quick_compiles")

SIZE, CLASSES, BATCH = 16, 5, 8
RNG = np.random.default_rng(0)
#: Everything but what replaces the image by one of a few policies.
LONG = (
    "random_crop(margin=4, padding=2), random_flip, random_rotation(15), random_scale(0.9, 1.1), random_perspective(0.2), "
    "random_color(0.3, 0.3, 0.3, 0.05), random_grey, random_blur((0.1, 1.0)), random_noise(5), random_erasing(0.5), "
    "random_label_flip(0.5), mixup(0.4), cutmix"
)


def batch_of(side, count=BATCH, first=0):
    rng = np.random.default_rng(side)
    images = rng.integers(0, 256, (64, side, side, 3), np.uint8)
    index = np.arange(first, first + count, dtype=np.int32)
    return {
        "image": images[index],
        "label": (index % CLASSES).astype(np.int32),
        "mask": np.ones(count, np.float32),
        "index": index,
        "shown": (index // 3).astype(np.int32),
    }


@functools.cache
def compiled(text):
    recipe = parse(text)
    return recipe, jax.jit(functools.partial(recipe.batch, seed=3, size=SIZE, classes=CLASSES))


def test_names_stand_for_lists_and_a_list_may_hold_them():
    assert parse("") == parse("none") == Augment()
    assert parse("crop_flip").window == Window((0.08, 1.0), (3 / 4, 4 / 3))
    assert [one.name for one in parse("crop_flip").operations] == ["random_flip"]
    assert parse("light").window == Window((0.7, 1.0), (0.9, 1 / 0.9))
    assert parse("pad_flip").window == Window(margin=0)
    both = parse("mild_flip, random_erasing(0.5, value='noise'), mixup")
    assert both.window.scale == (0.5, 1.0)
    assert [str(one) for one in both.operations] == [
        "random_flip(p=0.5, vertical=False)",
        "random_erasing(p=0.5, scale=(0.02, 0.33), ratio=(0.3, 3.3), value='noise')",
        "mixup(alpha=0.2, p=1.0)",
    ]
    own = parse("random_flip")
    assert parse(own) is own
    for name in AUGMENTS:
        again = parse(name)
        assert parse(str(again)).operations == again.operations or again.window.margin is not None


def test_what_is_random_and_what_changes_labels_is_known():
    assert not parse("none").random
    assert parse("crop").random
    assert parse("random_flip").random
    assert not parse("crop_flip, random_color").changes_labels
    assert all(parse(name).changes_labels for name in ("mixup", "cutmix", "random_label_flip"))
    assert [parse(name).mixes_examples for name in ("mixup", "cutmix", "random_label_flip")] == [True, True, False]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("crop_flop", "no augmentation is called 'crop_flop' (did you mean 'crop_flip'"),
        ("random_flip, random_rotatoin(10)", "no augmentation is called 'random_rotatoin' (did you mean 'random_rotation'"),
        ("random_rotation", "'random_rotation': missing a required argument: 'degrees'; it takes (degrees"),
        ("random_rotation(degree=3)", "'random_rotation' takes no option 'degree' (did you mean 'degrees'?)"),
        ("random_rotation(1, 2)", "'random_rotation': too many positional arguments"),
        ("random_flip, random_flip", "stands in the list twice"),
        ("random_flip, random_resized_crop", "it must stand first"),
        ("random_flip, random_crop(padding=4)", "it must stand first"),
        ("random_crop", "whole pixels to crop from"),
        ("random_crop(margin=1.5)", "whole pixels to crop from"),
        ("random_resized_crop('half')", "shares of the area"),
        ("random_resized_crop, random_crop(4)", "there can be but one"),
        ("random_resized_crop(0)", "random_resized_crop(0, (0.75, 1.33"),
        ("random_resized_crop((0.5, 1.5))", "shares of the area between 0 and 1"),
        ("random_resized_crop(0.5, ratio=(2, 1))", "random_resized_crop(0.5, (2, 1)): shares"),
        ("mixup(p=0.5), cutmix", "they need one p, not 0.5 and 1.0"),
        ("random_flip] + [random_grey", "cannot be read"),
        ("mixup(0)", "'mixup': alpha is 0: it must be above 0"),
        ("random_flip(p=1.5)", "'random_flip': p is 1.5: a probability lies between 0 and 1"),
        ("random_flip(p='often')", "p is 'often'"),
        ("random_flip random_grey", "cannot be read: names with commas between"),
        ("random_flip(", "cannot be read"),
        ("os.system('x')", "is no augmentation"),
        ("3", "'3' in '3' is no augmentation"),
        ("random_rotation(__import__('os'))", "must be numbers"),
        ("random_rotation(*[1])", "must be numbers"),
        ("random_rotation(**{'degrees': 1})", "'random_rotation' takes no option"),
    ],
)
def test_a_list_that_does_not_fit_says_why(text, said):
    with pytest.raises(JaxftError) as error:
        parse(text)
    assert said in str(error.value)


def test_options_of_another_kind_are_found_before_a_run():
    parse(LONG).check(3)
    for text in ("random_rotation('far')", "random_color(hue='red')", "random_blur(2)", "rand_augment(num_ops='two')"):
        with pytest.raises(JaxftError, match=f"the augmentations '{text[:8]}.* cannot work"):
            parse(text).check(3)
    for text, said in (
        ("rand_augment(magnitude=40)", "magnitude is 40: it must lie in 0 to 30"),
        ("trivial_augment(interpolation='nearset')", "did you mean 'nearest'"),
        ("random_scale(0)", "cannot work"),
    ):
        with pytest.raises(JaxftError, match=said):
            parse(text).check(3)
    with pytest.raises(JaxftError, match="1 or 3 channels, not 5"):
        parse("random_grey").check(5)
    parse("random_flip, random_rotation(5)").check(5)


def test_every_operation_stands_in_a_list_alone():
    for name in OPERATIONS:
        options = {"random_rotation": "(5)", "random_crop": "(padding=1)"}.get(name, "")
        recipe = parse(name + options)
        assert recipe.random
        found = jax.eval_shape(functools.partial(recipe.batch, seed=0, size=SIZE, classes=CLASSES), batch_of(SIZE))
        assert found["image"].shape == (BATCH, SIZE, SIZE, 3)


def test_without_operations_a_batch_is_left_as_it_is():
    recipe = parse("random_resized_crop")
    batch = batch_of(SIZE)
    assert recipe.batch(batch, seed=0, size=SIZE, classes=CLASSES) is batch


def test_flips_and_crops_keep_whole_pixels():
    recipe, run = compiled("random_crop(margin=3, padding=2), random_flip")
    assert recipe.window.side(SIZE) == SIZE + 3
    batch = batch_of(SIZE + 3)
    found = np.asarray(run(batch)["image"])
    assert found.dtype == np.uint8
    places, mirrored = set(), 0
    for one, image in zip(found, batch["image"], strict=True):
        framed = np.pad(image, ((2, 2), (2, 2), (0, 0)))
        windows = {
            (top, left, flip): framed[top : top + SIZE, left : left + SIZE][:, :: -1 if flip else 1]
            for top in range(8) for left in range(8) for flip in (False, True)
        }  # fmt: skip
        (place,) = [place for place, window in windows.items() if np.array_equal(window, one)]
        places.add(place[:2])
        mirrored += place[2]
    assert len(places) > 4
    assert 0 < mirrored < BATCH


def test_all_changes_of_place_are_one_look():
    """The list's matrices, taken apart: one warp of their product is what is seen, and the program looks once."""
    text = "random_flip(p=1.0), random_rotation(40)"
    recipe, run = compiled(text)
    batch = batch_of(SIZE)
    keys = example_keys(3, batch["shown"], batch["index"])
    for key, image, found in zip(keys, batch["image"], run(batch)["image"], strict=True):
        angle = jax.random.uniform(jax.random.fold_in(key, 1), (), minval=-40, maxval=40)
        np.testing.assert_allclose(found, warp(image, flipped(True) @ rotated(angle)), atol=0.05)
    many = parse("random_flip, random_rotation(40), random_scale, random_affine(shear=3), random_perspective")
    programs = [str(jax.make_jaxpr(functools.partial(one.images, seed=0, size=SIZE))(batch)) for one in (recipe, many)]
    assert programs[0].count("gather[") == programs[1].count("gather[") > 0


def test_a_crop_before_a_rotation_is_part_of_the_look():
    _, run = compiled("random_crop(margin=6), random_rotation(1e-6)")
    batch = batch_of(SIZE + 6)
    for one, image in zip(np.asarray(run(batch)["image"]), batch["image"], strict=True):
        windows = [image[top : top + SIZE, left : left + SIZE] for top in range(7) for left in range(7)]
        assert min(np.abs(one - window).max() for window in windows) < 0.05


def test_an_examples_look_depends_on_seed_pass_and_index_alone():
    recipe = parse(LONG.split(", random_label_flip")[0])
    run = jax.jit(functools.partial(recipe.images, seed=3, size=SIZE))
    whole = np.asarray(run(batch_of(SIZE + 4, 8)))
    for first in (0, 4):
        part = np.asarray(run(batch_of(SIZE + 4, 4, first)))
        np.testing.assert_allclose(part, whole[first : first + 4], atol=0.05)
    other = {**batch_of(SIZE + 4, 8), "shown": np.full(8, 9, np.int32)}
    assert np.abs(np.asarray(run(other)) - whole).max(axis=(1, 2, 3)).min() > 1
    another_seed = np.asarray(jax.jit(functools.partial(recipe.images, seed=4, size=SIZE))(batch_of(SIZE + 4, 8)))
    assert np.abs(another_seed - whole).max(axis=(1, 2, 3)).min() > 1


def test_what_stands_behind_in_a_list_changes_nothing_of_what_stands_before():
    short = compiled("random_color(0.3, 0, 0, 0)")[1](batch_of(SIZE))["image"]
    longer = compiled("random_color(0.3, 0, 0, 0), random_erasing(0)")[1](batch_of(SIZE))["image"]
    np.testing.assert_allclose(longer, short, atol=1e-3)


def test_a_batch_over_eight_devices_is_the_batch_of_one():
    _, run = compiled(LONG)
    batch = batch_of(SIZE + 4, 16)
    alone = run(batch)
    assert alone["label"].shape == (16, CLASSES)
    np.testing.assert_allclose(alone["label"].sum(-1), 1, atol=1e-5)
    mesh = make_mesh("8x1x1")
    places = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    spread = run(jax.device_put(batch, places))
    np.testing.assert_allclose(spread["image"], alone["image"], atol=0.05)
    np.testing.assert_allclose(spread["label"], alone["label"], atol=1e-5)


def test_labels_are_flipped_to_other_classes_as_often_as_asked():
    keys = jax.random.split(jax.random.key(0), 6000)
    flipped = np.asarray(jax.vmap(lambda key: augment.random_label_flip(key, jnp.int32(2), CLASSES, 0.3))(keys))
    assert 0.28 < (flipped != 2).mean() < 0.32
    others = np.bincount(flipped[flipped != 2], minlength=CLASSES)
    assert others[2] == 0
    assert np.abs(others[[0, 1, 3, 4]] / others.sum() - 0.25).max() < 0.04
    several = np.asarray(jax.vmap(lambda key: augment.random_label_flip(key, jnp.array([1.0, 0, 0]), 3, 0.2))(keys))
    np.testing.assert_allclose(several.mean(0), [0.8, 0.2, 0.2], atol=0.02)
    with pytest.raises(JaxftError, match="the value of a regression has no other"):
        augment.random_label_flip(keys[0], jnp.float32(1.5), 1, 0.2)


def test_a_mixed_image_and_its_label_have_the_same_share():
    size, count = 12, 400
    images = np.zeros((count, size, size, 1), np.float32)
    images[1::2] = 255  # the example before has the other colour
    labels = soft_label(jnp.arange(count, dtype=jnp.int32) % 2, 2)
    keys = jax.random.split(jax.random.key(1), count)
    for alphas in ({"mixup_alpha": 0.5}, {"cutmix_alpha": 1.0}, {"mixup_alpha": 0.5, "cutmix_alpha": 1.0}):
        found, soft = jax.jit(functools.partial(mixed_batch, **alphas))(keys, images, labels)
        bright = np.asarray(found).mean((1, 2, 3)) / 255
        np.testing.assert_allclose(bright, np.asarray(soft)[:, 1], atol=1e-5)
        assert np.std(bright[::2]) > 0.1
        values = np.asarray(found)
        whole = ((values == 0) | (values == 255)).all((1, 2, 3)).mean()
        assert (whole > 0.9) if "mixup_alpha" not in alphas else (whole < 0.7)
        if len(alphas) == 2:
            assert 0.35 < whole < 0.7
    _, soft = mixed_batch(keys, images, labels, mixup_alpha=0.5, p=0.25)
    assert 0.2 < (np.asarray(soft).max(-1) < 1).mean() < 0.3
    values = jnp.arange(count, dtype=jnp.float32)
    found, mixed = mixed_batch(keys, images, values, mixup_alpha=0.5)
    np.testing.assert_allclose(mixed, values - (1 - soft_share(found)) * (values - jnp.roll(values, 1)), atol=1e-2)


def soft_share(found):
    """Of images that are black and white in turn, the share of the image itself."""
    bright = np.asarray(found).mean((1, 2, 3)) / 255
    return np.where(np.arange(len(bright)) % 2 == 1, bright, 1 - bright)


def test_shares_have_the_distribution_of_torchvision(fixtures_of_augment):
    keys = jax.random.split(jax.random.key(5), 4000)
    image = jnp.zeros((60, 80, 1))
    shares = np.asarray(jax.jit(jax.vmap(lambda key: augment.cutmix(key, image, image)[1]))(keys))
    expected = fixtures_of_augment["cutmix shares"]
    at = np.linspace(0.01, 0.99, 99)
    assert np.abs((shares[:, None] <= expected + 1e-6).mean(0) - at).max() < 0.05
    blends = np.asarray(jax.jit(jax.vmap(lambda key: augment.mixup(key, image, image, 0.4)[1]))(keys))
    from scipy.stats import beta

    ordered = np.sort(blends)
    assert np.abs(beta(0.4, 0.4).cdf(ordered) - (np.arange(4000) + 0.5) / 4000).max() < 0.035


@pytest.fixture(scope="module")
def fixtures_of_augment():
    from pathlib import Path

    with np.load(Path(__file__).parent / "fixtures" / "torchvision.npz") as file:
        return dict(file)
