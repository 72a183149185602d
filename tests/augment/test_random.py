"""Random augmentations: their parameters have the stated distributions, their keys decide all, gradients flow through them."""

import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxft import augment
from jaxft.augment import color, geometry, pixels, policies
from jaxft.augment.draws import beta, dirichlet
from jaxft.augment.geometry import affine_matrix, perspective_matrix, random_window, rotation_matrix, scale_matrix
from jaxft.errors import JaxftError

pytestmark = pytest.mark.usefixtures("quick_compiles")

KEYS = jax.random.split(jax.random.key(7), 4000)
#: Between a sample's distribution function and the stated one. Of 4,000 draws chance goes beyond it once in a million times.
DISTANCE = 0.043
PHOTO = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)

#: Each function that takes one image, with options that always change something.
FUNCTIONS = {
    "random_flip": {"p": 1.0},
    "random_rotation": {"degrees": 30.0},
    "random_scale": {},
    "random_affine": {"degrees": 10.0, "translate": 0.1, "scale": (0.8, 1.2), "shear": 5.0},
    "random_perspective": {"p": 1.0},
    "random_crop": {"size": 16, "padding": 2},
    "random_resized_crop": {"size": 16, "scale": (0.2, 0.4)},
    "random_color": {},
    "random_grey": {"p": 1.0},
    "random_blur": {"p": 1.0},
    "random_noise": {},
    "random_posterize": {"p": 1.0},
    "random_solarize": {"p": 1.0},
    "random_equalize": {"p": 1.0},
    "random_autocontrast": {"p": 1.0},
    "random_invert": {"p": 1.0},
    "random_sharpness": {"p": 1.0},
    "random_erasing": {"p": 1.0},
    "rand_augment": {"magnitude": 20.0},
    "trivial_augment": {},
    "aug_mix": {"width": 2, "depth": 1},
}
KEEPS_DTYPE = ("random_flip", "random_crop")
POLICIES = ("rand_augment", "trivial_augment", "aug_mix")


def distance(sample, cdf):
    """The largest difference of a sample's distribution function and a stated one (Kolmogorov)."""
    sample = np.sort(np.asarray(sample, np.float64))
    steps = np.arange(len(sample) + 1) / len(sample)
    stated = cdf(sample)
    return max((steps[1:] - stated).max(), (stated - steps[:-1]).max())


def uniform(low, high):
    return lambda x: np.clip((x - low) / (high - low), 0, 1)


def test_every_function_of_an_image_is_tried_here():
    public = {name: getattr(augment, name) for name in augment.__all__}
    found = {name for name, one in public.items() if inspect.isfunction(one) and "image" in inspect.signature(one).parameters}
    assert found - {"warp", "mixup", "cutmix", "mixed_batch"} == FUNCTIONS.keys()


@pytest.fixture(scope="module")
def results():
    """Of each function, what it gives for four keys, for uint8 and for floats, by itself and under vmap."""

    def make(name):
        function = jax.jit(lambda key, image: getattr(augment, name)(key, image, **FUNCTIONS[name]))
        many = jax.jit(jax.vmap(function, in_axes=(0, None)))(KEYS[:4], PHOTO)
        if name in POLICIES:  # they take long to compile
            return np.asarray(many), None
        again = [function(key, PHOTO.astype(np.float32)) for key in KEYS[:2]]
        return np.asarray(many), np.asarray(again)

    return {name: make(name) for name in FUNCTIONS}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_gives_an_image_that_its_key_decides(name, results):
    many, again = results[name]
    side = (FUNCTIONS[name].get("size"),) * 2 if "size" in FUNCTIONS[name] else PHOTO.shape[:2]
    assert many.shape == (4, *side, 3)
    assert many.dtype == (np.uint8 if name in KEEPS_DTYPE else np.float32)
    assert np.isfinite(many).all()
    assert many.min() >= 0
    assert many.max() <= 255.001
    if again is not None:  # the same for uint8 and float images, one by one and under vmap
        np.testing.assert_allclose(again, many[:2], atol=0.02)
    plain = ("random_flip", "random_grey", "random_posterize", "random_solarize", "random_equalize", "random_autocontrast",
             "random_invert", "random_sharpness")  # fmt: skip
    assert (len(np.unique(many.reshape(4, -1), axis=0)) == 1) == (name in plain)
    if many.shape[1:] == PHOTO.shape and name != "random_autocontrast":  # whose range is the whole one already
        assert np.abs(many - PHOTO.astype(np.float32)).max(axis=(1, 2, 3)).max() > 1


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if "p" in inspect.signature(getattr(augment, name)).parameters])
def test_with_probability_zero_nothing_changes_and_with_a_half_about_half(name):
    options = {**FUNCTIONS[name], "p": 0.0}
    function = getattr(augment, name)
    image = PHOTO[:9, :11].astype(np.float32) * 0.8
    still = jax.jit(jax.vmap(lambda key: function(key, image, **options)))(KEYS[:50])
    np.testing.assert_allclose(still, np.broadcast_to(image, still.shape), atol=1e-3)
    options["p"] = 0.5
    found = np.asarray(jax.jit(jax.vmap(lambda key: function(key, image, **options)))(KEYS[:1000]))
    changed = (np.abs(found - image) > 1e-3).any(axis=(1, 2, 3)).sum()
    assert 430 < changed < 570


def test_angles_scales_and_places_are_uniform_as_stated():
    size = (30, 40)
    turns = jax.vmap(lambda key: rotation_matrix(key, size, degrees=25.0))(KEYS)
    assert distance(np.rad2deg(np.arctan2(turns[:, 1, 0], turns[:, 0, 0])), uniform(-25, 25)) < DISTANCE
    factors = jax.vmap(lambda key: scale_matrix(key, size, low=0.5, high=3.0))(KEYS)
    assert distance(-np.log(factors[:, 0, 0]), uniform(np.log(0.5), np.log(3))) < DISTANCE
    moves = jax.vmap(lambda key: affine_matrix(key, size, translate=0.25))(KEYS)
    assert distance(moves[:, 0, 2], uniform(-10, 10)) < DISTANCE
    assert distance(moves[:, 1, 2], uniform(-7.5, 7.5)) < DISTANCE
    assert abs(np.corrcoef(moves[:, 0, 2], moves[:, 1, 2])[0, 1]) < 0.08
    grown = jax.vmap(lambda key: affine_matrix(key, size, scale=(0.5, 2.0)))(KEYS)
    assert distance(1 / grown[:, 0, 0], uniform(0.5, 2)) < DISTANCE
    slants = jax.vmap(lambda key: affine_matrix(key, size, shear=20.0))(KEYS)
    assert distance(np.rad2deg(np.arctan(slants[:, 0, 1])), uniform(-20, 20)) < DISTANCE
    places = jax.vmap(lambda key: geometry.crop_place(key, (10, 13), side=8, padding=1))(KEYS)
    for axis, room in ((0, 5), (1, 8)):
        counts = np.bincount(np.asarray(places)[:, axis], minlength=room)
        assert len(counts) == room
        assert np.abs(counts / 4000 - 1 / room).max() < 0.03


def test_corners_move_inward_uniformly_and_about_half_of_the_pictures_stay():
    size = (31, 41)
    matrices = np.asarray(jax.vmap(lambda key: perspective_matrix(key, size, distortion=0.4, p=0.5))(KEYS))
    still = np.abs(matrices / matrices[:, 2:, 2:] - np.eye(3)).max((1, 2)) < 1e-4
    assert 0.46 < still.mean() < 0.54
    # Where the picture's corner (-20, -15) is seen: through the inverse of the matrix.
    seen = np.linalg.inv(matrices[~still].astype(np.float64)) @ np.array([-20.0, -15.0, 1.0])
    x, y = seen[:, 0] / seen[:, 2], seen[:, 1] / seen[:, 2]
    assert distance(x + 20, uniform(0, 0.4 * 20.5)) < 1.5 * DISTANCE
    assert distance(y + 15, uniform(0, 0.4 * 15.5)) < 1.5 * DISTANCE


@pytest.mark.parametrize("size", [(400, 600), (40, 400)])
def test_windows_have_the_distribution_of_torchvision(size, fixtures):
    from pictures import CROPS, SHARES, crop_figures

    name = {(400, 600): "usual", (40, 400): "a wide strip"}[size]
    matrices = jax.vmap(
        lambda key: geometry.resized_crop_matrix(key, size, side=100, scale=CROPS[name][2], ratio=CROPS[name][3])
    )(KEYS)
    width, height = np.asarray(matrices[:, 0, 0]) * 100, np.asarray(matrices[:, 1, 1]) * 100
    left, top = (
        np.asarray(matrices[:, 0, 2]) + size[1] / 2 - width / 2,
        np.asarray(matrices[:, 1, 2]) + size[0] / 2 - height / 2,
    )
    figures = crop_figures(np.stack([left, top, width, height], axis=1), *size)
    with np.load(fixtures / "transforms.npz") as golden:
        quantiles = golden[f"crop|{name}|quantiles"]
    for found, expected in zip(figures, quantiles, strict=True):
        step = 1e-4 * (1 + np.abs(expected))
        below, upto = (found[:, None] < expected - step).mean(0), (found[:, None] <= expected + step).mean(0)
        assert max((below - SHARES).max(), (SHARES - upto).max()) < DISTANCE


@pytest.fixture(scope="module")
def fixtures():
    return Path(__file__).parent.parent / "decoding" / "fixtures"


def test_colours_have_the_stated_factors():
    image = jnp.full((2, 2, 3), 60.0)
    found = jax.vmap(lambda key: augment.random_color(key, image, 0.5, 0, 0, 0)[0, 0, 0])(KEYS) / 60
    assert distance(found, uniform(0.5, 1.5)) < DISTANCE
    two = jnp.stack([jnp.full((1, 2, 3), 100.0), jnp.full((1, 2, 3), 140.0)], axis=1)[0]
    spread = jax.vmap(lambda key: augment.random_color(key, two, 0, 0.6, 0, 0))(KEYS)
    assert distance((spread[:, 1, 0, 0] - spread[:, 0, 0, 0]) / 40, uniform(0.4, 1.6)) < DISTANCE
    red = jnp.zeros((1, 1, 3)).at[..., 0].set(200.0).at[..., 1:].set(100.0)
    found = jax.vmap(lambda key: augment.random_color(key, red, 0, 0, 0.3, 0)[0, 0])(KEYS)
    assert distance((found[:, 0] - found[:, 1]) / 100, uniform(0.7, 1.3)) < DISTANCE
    found = np.asarray(jax.vmap(lambda key: augment.random_color(key, red, 0, 0, 0, 0.15)[0, 0])(KEYS))
    # To green the second channel rises, to blue the third: the hue is told by how far.
    turn = np.where(found[:, 1] > found[:, 2], found[:, 1] - 100, 100 - found[:, 2]) / 100 / 6
    assert distance(turn, uniform(-0.15, 0.15)) < DISTANCE
    bright = jax.vmap(lambda key: augment.random_color(key, image, 3.0, 0, 0, 0)[0, 0, 0])(KEYS)
    assert np.asarray(bright).min() >= 0  # a factor is never negative


def test_noise_is_normal_with_the_stated_deviation():
    grey = jnp.full((30, 40, 3), 127.5)
    found = jax.vmap(lambda key: augment.random_noise(key, grey, 12.0))(KEYS[:500]) - 127.5
    deviations = np.asarray(found).std(axis=(1, 2, 3))
    assert distance(deviations, uniform(0, 12)) < 0.09
    whole = np.asarray(found / deviations[:, None, None, None]).reshape(500, -1)
    assert abs(whole.mean()) < 0.01
    assert abs((np.abs(whole) < 1).mean() - 0.6827) < 0.005
    assert abs((np.abs(whole) < 2).mean() - 0.9545) < 0.003
    assert abs(np.mean([np.corrcoef(one[:-1], one[1:])[0, 1] for one in whole])) < 0.01
    assert abs(np.corrcoef(whole[0], whole[1])[0, 1]) < 0.07


def test_blurs_have_the_stated_width():
    point = jnp.zeros((41, 41, 1)).at[20, 20, 0].set(255.0)
    found = jax.vmap(lambda key: augment.random_blur(key, point, (0.8, 3.0), p=1.0))(KEYS[:1500])
    weight = np.asarray(found)[..., 0].sum(2) / 255
    width = np.sqrt((weight * (np.arange(41) - 20) ** 2).sum(1))
    assert distance(width, uniform(0.8, 3.0)) < 0.07


def test_erased_areas_are_torchvisions_and_hold_what_is_asked_for():
    with np.load(Path(__file__).parent / "fixtures" / "torchvision.npz") as golden:
        expected = golden["erased areas"]
    image = jnp.full((60, 80, 3), 9.0)
    found = np.asarray(jax.vmap(lambda key: augment.random_erasing(key, image, 1.0, value=200.0)[..., 0])(KEYS))
    assert set(np.unique(found)) == {9, 200}
    areas = (found == 200).mean((1, 2))
    shares = np.linspace(0.01, 0.99, 99)
    assert np.abs((areas[:, None] <= expected + 1e-6).mean(0) - shares).max() < DISTANCE + 0.01
    noisy = np.asarray(augment.random_erasing(KEYS[0], image, 1.0, value="noise"))
    erased = noisy[noisy[..., 0] != 9]
    assert distance(erased.ravel(), uniform(0, 255)) < 0.2
    assert len(np.unique(erased)) > 100


def test_policies_draw_every_operation_as_often_and_both_signs():
    for space, count in ((policies.RAND_AUGMENT, 14), (policies.AUG_MIX, 13)):
        numbers, levels = jax.vmap(lambda key, space=space: policies.draw(key, 2, space, jnp.float32(0.3)))(KEYS)
        found = np.bincount(np.asarray(numbers).ravel(), minlength=14) / 8000
        assert (found > 0).sum() == count
        assert np.abs(found[found > 0] - 1 / count).max() < 0.02
        signed = np.isin(numbers, [policies.NUMBER[name] for name in policies._SIGNED])
        assert 0.47 < (np.asarray(levels)[signed] > 0).mean() < 0.53
        assert (np.asarray(levels)[~signed] == np.float32(0.3)).all()


def test_a_mix_is_the_weighted_mean_of_its_chains_and_the_image():
    space = policies.AUG_MIX
    found = jax.jit(lambda key: augment.aug_mix(key, PHOTO, 4.0, 2, 1))(KEYS[5])
    _, strengths, drawn, weights, share = jax.random.split(KEYS[5], 5)
    levels = jax.random.uniform(strengths, (2, 1), minval=0.1, maxval=4.0) / 10
    chain = jax.jit(lambda numbers, levels: policies.chain(PHOTO, numbers, levels, space))
    parts = [chain(*policies.draw(jax.random.fold_in(drawn, number), 1, space, levels[number])) for number in range(2)]
    mixing, kept = dirichlet(weights, 1.0, 2), beta(share, 1.0)
    mixed = sum(weight * part for weight, part in zip(mixing, parts, strict=True))
    np.testing.assert_allclose(found, kept * PHOTO + (1 - kept) * mixed, atol=0.05)
    assert np.abs(np.asarray(found) - PHOTO).max() > 5


#: Of the policies one tells for all: their chains are the same.
DIFFERENTIABLE = [
    name for name in FUNCTIONS if name not in ("random_posterize", "random_equalize", "trivial_augment", "aug_mix")
]


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_flow_to_the_image_and_are_the_slope(name):
    image = jnp.asarray(np.random.default_rng(1).uniform(90, 160, (9, 10, 3)), jnp.float32)
    options = {**FUNCTIONS[name], **({"size": 8} if "size" in FUNCTIONS[name] else {})}
    weights = np.random.default_rng(2).normal(size=(8, 8, 3) if "size" in options else image.shape)
    key = KEYS[3]

    @jax.jit
    def value(image):
        return (getattr(augment, name)(key, image, **options) * weights).sum()

    slope = jax.jit(jax.grad(value))(image)
    assert np.isfinite(np.asarray(slope)).all()
    if name in ("rand_augment", "random_autocontrast"):
        return  # piecewise: which operation was drawn decides
    assert np.abs(np.asarray(slope)).max() > 0
    direction = jnp.asarray(np.random.default_rng(3).normal(size=image.shape), jnp.float32)
    step = 0.05
    numeric = (value(image + step * direction) - value(image - step * direction)) / (2 * step)
    np.testing.assert_allclose((slope * direction).sum(), numeric, rtol=0.02, atol=0.05)


def test_a_rotations_angle_has_a_gradient():
    from jaxft.augment.warp import rotated

    y, x = jnp.mgrid[:21, :21] - 10.0
    image = (100 + 3 * x + 2 * y)[..., None]
    slope = jax.grad(lambda angle: augment.warp(image, rotated(angle))[10, 14, 0])(5.0)
    # The pixel (4, 0) sees 100 + 3 * 4 cos + 2 * 4 sin of the angle.
    angle = np.deg2rad(5.0)
    np.testing.assert_allclose(slope, np.deg2rad(1) * (-12 * np.sin(angle) + 8 * np.cos(angle)), rtol=1e-3)


def test_one_channel_is_enough_and_five_are_refused_where_colours_matter():
    grey = PHOTO[..., :1]
    for name, options in FUNCTIONS.items():
        found = jax.eval_shape(lambda key, name=name, options=options: getattr(augment, name)(key, grey, **options), KEYS[0])
        assert found.shape[-1] == 1, name
    many = np.concatenate([PHOTO, PHOTO], axis=-1)[..., :5]
    assert augment.random_blur(KEYS[0], many).shape == many.shape
    for function in (color.saturation, color.hue):
        with pytest.raises(JaxftError, match="1 or 3 channels, not 5"):
            function(many, 0.5)


def test_a_window_that_never_fits_is_told():
    fits, *_ = random_window(jax.random.key(0), (4, 400), (0.9, 1.0), (0.75, 4 / 3))
    assert not fits
    inside = pixels.in_window((4, 5), 1, 2, 3, 1)
    assert np.asarray(inside)[..., 0].sum() == 3
