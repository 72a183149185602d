"""Operations at fixed parameters on photographs: torchvision's results, and Pillow's."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from augment_cases import BINS, CASES, PARTS, POLICY, kept, photograph
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from sklearn.datasets import load_sample_images

from jaxft.augment import color, policies
from jaxft.augment import warp as look
from jaxft.augment.geometry import resized_crop_matrix
from jaxft.augment.pixels import in_window
from jaxft.augment.warp import cropped, moved, perspective, rotated, scaled, sheared

#: Of 255 values: float32 against float64. A bilinear look into a photograph multiplies the error of a coordinate by its edges.
CLOSE, LOOK = 2e-3, 0.05


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parent / "fixtures" / "torchvision.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def photos():
    pictures = load_sample_images()
    return {name: photograph(name, pictures) for name in PARTS}


def affine(image, degrees, dx, dy, scale, shear):
    x, y = (np.tan(np.deg2rad(one)) for one in shear)
    return look(image, sheared(x, y) @ scaled(scale) @ rotated(degrees) @ moved(dx, dy))


def seen_from(image, moved):
    height, width = image.shape[:2]
    corners = jnp.array([[0.0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]])
    middle = jnp.array([width, height]) / 2  # torchvision, as Pillow, has the corner of the first pixel at 0
    return look(image, perspective(corners - middle, jnp.array(moved) - middle))


def erased(image, window):
    return jnp.where(in_window(image.shape[:2], *window), 0.0, image.astype(jnp.float32))


OPERATIONS = {
    "rotate": lambda image, degrees, interpolation: look(image, rotated(degrees), interpolation=interpolation),
    "affine": affine,
    "perspective": seen_from,
    "erase": erased,
    **{name: getattr(color, name) for name in (
        "brightness", "contrast", "saturation", "hue", "grey", "invert", "posterize", "solarize", "autocontrast", "equalize",
        "sharpness", "blur",
    )},
}  # fmt: skip
GEOMETRY = ("rotate", "affine", "perspective")


@pytest.mark.parametrize("name", CASES)
def test_an_operation_is_torchvisions(name, photos, golden):
    operation, options = CASES[name]
    for photo, pixels in photos.items():
        found = kept(jax.jit(lambda image: OPERATIONS[operation](image, **options))(pixels), name)
        difference = np.abs(found - golden[f"{photo}|{name}"])
        if operation == "rotate" and options["interpolation"] == "nearest":
            # Where a point lies in the middle between two pixels, rounding decides.
            assert (difference > CLOSE).mean() < 2e-3
        else:
            assert difference.max() < (LOOK if operation in GEOMETRY else CLOSE)


@pytest.mark.parametrize(("window", "size"), [((40, 25, 90, 110), 128), ((0, 0, 120, 64), 160), ((250, 140, 50, 60), 60)])
def test_a_window_shown_larger_is_pillows(window, size, photos):
    left, top, width, height = window
    for pixels in photos.values():
        edge = np.pad(pixels, ((1, 1), (1, 1), (0, 0)), mode="edge")
        found = np.asarray(look(edge, cropped(*window, source=pixels.shape[:2], size=(size, size)), size=(size, size)))
        box = (left, top, left + width, top + height)
        expected = Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR, box=box)
        assert np.abs(found - np.asarray(expected, np.float32)).max() < 1.1


@pytest.mark.parametrize("policy", ["rand", "trivial"])
def test_one_operation_of_a_policy_is_torchvisions(policy, photos, golden):
    space = policies.RAND_AUGMENT if policy == "rand" else policies.TRIVIAL_AUGMENT
    for photo, pixels in photos.items():
        chain = jax.jit(lambda number, level, pixels=pixels: policies.chain(pixels, number[None], level[None], space))
        for name, (_, signed) in POLICY.items():
            for level in BINS:
                for sign in (1, -1) if signed else (1,):
                    key = f"{policy}|{name}|{sign * level}"
                    found = chain(jnp.array(policies.NUMBER[name]), jnp.float32(sign * level / 30))
                    difference = np.abs(kept(found, key)[:500] - golden[f"{photo}|{key}"])
                    if name == "solarize":  # a value at the threshold may fall to either side
                        assert (difference > CLOSE).mean() < 0.01, key
                    else:
                        assert difference.max() < (LOOK if name in policies.GEOMETRY else CLOSE), key


PILLOW = {
    "brightness": (lambda image: color.brightness(image, 1.4), lambda image: ImageEnhance.Brightness(image).enhance(1.4), 1),
    "contrast": (lambda image: color.contrast(image, 0.6), lambda image: ImageEnhance.Contrast(image).enhance(0.6), 1.5),
    "saturation": (lambda image: color.saturation(image, 1.6), lambda image: ImageEnhance.Color(image).enhance(1.6), 1.5),
    "sharpness": (lambda image: color.sharpness(image, 1.8), lambda image: ImageEnhance.Sharpness(image).enhance(1.8), 1.5),
    "smooth": (color.smooth, lambda image: image.filter(ImageFilter.SMOOTH), 1),
    "grey": (color.grey, lambda image: image.convert("L").convert("RGB"), 1),
    "posterize": (lambda image: color.posterize(image, 3), lambda image: ImageOps.posterize(image, 3), 0),
    "solarize": (lambda image: color.solarize(image, 100.0), lambda image: ImageOps.solarize(image, 100), 0),
    "equalize": (color.equalize, ImageOps.equalize, 0),
    "autocontrast": (color.autocontrast, ImageOps.autocontrast, 1),
    "invert": (color.invert, ImageOps.invert, 0),
    "rotation": (lambda image: look(image, rotated(23.0)), lambda image: image.rotate(23, Image.Resampling.BILINEAR), None),
}


@pytest.mark.parametrize("name", PILLOW)
def test_an_operation_is_pillows_but_for_rounding(name, photos):
    ours, theirs, tolerance = PILLOW[name]
    for pixels in photos.values():
        found = np.asarray(jax.jit(ours)(pixels))
        difference = np.abs(found - np.asarray(theirs(Image.fromarray(pixels)), np.float32))
        if tolerance is None:  # Pillow computes coordinates in 16 bits of fraction, and cuts off at the border
            assert np.quantile(difference, 0.97) < 1.5
        else:
            assert difference.max() <= tolerance


def test_both_histograms_are_numpys(photos):
    values = photos["china"].reshape(-1, 3).astype(np.int32)
    expected = np.stack([np.bincount(values[:, channel], minlength=256) for channel in range(3)])
    for histogram in (color._histogram_by_count, color._histogram_by_digits):
        np.testing.assert_array_equal(jax.jit(histogram)(values), expected)
    np.testing.assert_array_equal(jax.jit(jax.vmap(color.histogram))(photos["china"][None])[0], expected)


def test_equalize_leaves_a_channel_of_one_value_alone():
    image = jnp.zeros((9, 11, 3)).at[..., 1].set(77.0).at[..., 2].set(jnp.arange(11.0))
    found = np.asarray(color.equalize(image))
    np.testing.assert_array_equal(found[..., :2], image[..., :2])
    expected = ImageOps.equalize(Image.fromarray(np.asarray(image).astype(np.uint8)))
    np.testing.assert_array_equal(found, np.asarray(expected, np.float32))


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 7, 3), (2, 2, 1), (40, 31, 3)])
def test_a_blur_is_a_weighted_mean_of_the_mirrored_picture(shape):
    image = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
    sigma, radius = 1.3, 4
    found = np.asarray(color.blur(image, sigma, radius=radius), np.float64)
    expected = image.astype(np.float64)
    for axis in (0, 1):
        reach = min(radius, shape[axis] - 1)
        weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        pads = [(0, 0)] * 3
        pads[axis] = (reach, reach)
        padded = np.pad(expected, pads, mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=axis)
        expected = windows @ (weights / weights.sum())
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_matrices_put_together_are_one_look_and_each_undoes_its_inverse():
    image = np.random.default_rng(0).integers(0, 256, (31, 45, 3), np.uint8)
    np.testing.assert_array_equal(look(image, rotated(0.0) @ moved(0, 0)), image)
    np.testing.assert_array_equal(look(image, moved(3, -2))[:-2, 3:], image[2:, :-3])
    square = image[:31, :31]
    half = np.asarray(look(square, rotated(180.0)))
    np.testing.assert_array_equal(half[1:-1, 1:-1].round(), square[::-1, ::-1][1:-1, 1:-1])
    quarter = np.asarray(look(square, rotated(90.0), interpolation="nearest"))
    np.testing.assert_array_equal(quarter, np.asarray(Image.fromarray(square).rotate(90)))
    for one in (rotated(31.0), scaled(1.7), moved(4, 9), sheared(0.3, 0.0)):
        for other in (rotated(-31.0), scaled(1 / 1.7), moved(-4, -9), sheared(-0.3, 0.0)):
            found = np.asarray(one @ other)
            if np.allclose(np.asarray(one), np.linalg.inv(np.asarray(other)), atol=1e-5):
                np.testing.assert_allclose(found, np.eye(3), atol=1e-5)
                break
        else:
            pytest.fail("no inverse")


def test_what_lies_outside_is_filled_and_points_at_infinity_are_outside():
    image = np.full((8, 8, 1), 200, np.uint8)
    assert (np.asarray(look(image, moved(20, 0), fill=7)) == 7).all()
    vanishing = jnp.array([[1.0, 0, 0], [0, 1, 0], [0.5, 0, 0]])
    found = np.asarray(look(image, vanishing, fill=7))
    assert np.isfinite(found).all()
    assert ((found >= 7) & (found <= 200)).all()


def test_a_window_without_a_random_place_is_the_largest_in_the_middle():
    # A strip so wide that no window of the asked shapes and areas fits in.
    matrix = resized_crop_matrix(jax.random.key(0), (4, 400), side=8, scale=(0.9, 1.0), ratio=(0.75, 4 / 3))
    expected = cropped(jnp.float32(197), jnp.float32(0), jnp.float32(5), jnp.float32(4), source=(4, 400), size=(8, 8))
    np.testing.assert_allclose(matrix, expected, atol=1e-5)
