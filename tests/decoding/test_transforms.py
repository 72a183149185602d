"""The evaluation transform is torchvision's to the bit; training windows have torchvision's distribution."""

import hashlib

import numpy as np
import pytest
from pictures import CASES, CROPS, INTERPOLATIONS, LARGE, SHARES, crop_figures, encode, picture, smooth
from PIL import Image

from jaxft.augment import AUGMENTS, Window, parse
from jaxft.data import decode, eval_transform, read_eval, read_train
from jaxft.decoding import transforms
from jaxft.decoding.transforms import resize
from jaxft.decoding.window import random_box
from jaxft.errors import JaxftError
from jaxft.preprocessing import Preprocessing

DRAWS = 10_000
#: Between two distribution functions. Of 20,000 and 10,000 draws, chance goes beyond it once in ten thousand times.
DISTANCE = 0.028


@pytest.fixture(scope="module")
def golden(fixtures):
    with np.load(fixtures / "transforms.npz") as file:
        return dict(file)


def read(image, preprocessing, window, seed=0, **options):
    channels = image.shape[2] if isinstance(image, np.ndarray) else 3
    return read_train(image, preprocessing, np.random.default_rng(seed), window, channels=channels, **options)


def draws(height, width, window, count=DRAWS, seed=0):
    """left, top, width, height of many crops."""
    rng = np.random.default_rng(seed)
    boxes = np.array([random_box(height, width, rng, window) for _ in range(count)])
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def evaluated(name, case, interpolation):
    height, width, channels, short, size = case
    preprocessing = Preprocessing(size=size, resize=short, interpolation=interpolation)
    return eval_transform(picture(name, height, width, channels), preprocessing)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("name", CASES)
def test_the_evaluation_transform_is_bit_equal_to_torchvision(name, interpolation, golden):
    found = evaluated(name, CASES[name], interpolation)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, golden[f"{interpolation}|{name}"])


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("name", LARGE)
def test_pictures_of_the_size_of_photographs_are_bit_equal_to_torchvision(name, interpolation, golden):
    found = evaluated(name, LARGE[name], interpolation)
    assert hashlib.sha256(found.tobytes()).hexdigest() == str(golden[f"{interpolation}|{name}"])


def test_the_interpolations_tell_themselves_apart(golden):
    for name in ("landscape", "grey"):
        results = [golden[f"{interpolation}|{name}"].tobytes() for interpolation in INTERPOLATIONS]
        assert len(set(results)) == len(INTERPOLATIONS)


def test_evaluation_keeps_the_middle_of_the_short_side():
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 255
    found = eval_transform(pixels, Preprocessing(size=20, resize=20))
    np.testing.assert_array_equal(found, pixels[:, 20:40])


@pytest.mark.parametrize(("height", "width"), [(20, 60), (47, 33), (5, 7)])
def test_a_squashed_picture_shows_its_whole_height_and_width(height, width):
    pixels = picture("squashed", height, width, 3)
    found = eval_transform(pixels, Preprocessing(size=24, resize=30, interpolation="bicubic", squash=True))
    whole = np.asarray(Image.fromarray(pixels).resize((30, 30), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(found, whole[3:27, 3:27])


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_any_number_of_channels_is_resized_as_each_would_be_alone(channels):
    pixels = picture("many", 33, 47, channels)
    preprocessing = Preprocessing(size=20, resize=24, interpolation="bicubic")
    window = Window((0.3, 1.0))
    alone = [pixels[..., number : number + 1] for number in range(channels)]
    found = eval_transform(pixels, preprocessing)
    assert found.shape == (20, 20, channels)
    parts = [eval_transform(part, preprocessing) for part in alone]
    np.testing.assert_array_equal(found, np.concatenate(parts, axis=-1))
    found = read(pixels, preprocessing, window)
    parts = [read(part, preprocessing, window) for part in alone]
    assert found.shape == (20, 20, channels)
    np.testing.assert_array_equal(found, np.concatenate(parts, axis=-1))


def test_three_channels_are_resized_as_each_would_be_alone():
    pixels = picture("three", 33, 47, 3)
    whole = resize(pixels, (20, 30), "bilinear", (3, 4, 31, 29))
    parts = [resize(pixels[..., [number]], (20, 30), "bilinear", (3, 4, 31, 29)) for number in range(3)]
    np.testing.assert_array_equal(whole, np.concatenate(parts, axis=-1))


@pytest.mark.parametrize("name", CROPS)
def test_random_crops_have_the_distribution_of_torchvision(name, golden):
    height, width, scale, ratio = CROPS[name]
    figures = crop_figures(draws(height, width, Window(scale, ratio)), height, width)
    quantiles, means = golden[f"crop|{name}|quantiles"], golden[f"crop|{name}|means"]
    # Area share, ratio, left, top, width share.
    for found, expected, mean in zip(figures, quantiles, means, strict=True):
        # Both sides of a step: the figures of crops in whole pixels come in steps.
        step = 1e-5 * (1 + np.abs(expected))
        below = (found[:, None] < expected - step).mean(0)
        upto = (found[:, None] <= expected + step).mean(0)
        assert (below - SHARES).max() < DISTANCE
        assert (SHARES - upto).max() < DISTANCE
        assert abs(found.mean() - mean) < 4 * found.std() / 80 + 1e-9  # 80 is the root of the mean of both counts, or less


def test_a_crop_of_another_distribution_would_be_told(golden):
    # From 16% of the area on, not from 8%.
    found = crop_figures(draws(*CROPS["usual"][:2], Window((0.16, 1.0))), *CROPS["usual"][:2])[0]
    below = (found[:, None] < golden["crop|usual|quantiles"][0]).mean(0)
    assert (SHARES - below).max() > DISTANCE


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (40, 1), (2, 3), (7, 200), (200, 7), (33, 50)])
@pytest.mark.parametrize("name", [name for name in AUGMENTS if parse(name).window.scale])
def test_crops_lie_inside_the_picture_and_keep_something(height, width, name):
    window = parse(name).window
    boxes = draws(height, width, window, 500)
    left, top, w, h = boxes.T
    assert (boxes[:, :2] >= 0).all()
    assert (w >= 1).all()
    assert (h >= 1).all()
    assert (left + w <= width).all()
    assert (top + h <= height).all()
    if min(height, width) >= 33:
        share = w * h / (height * width)
        assert share.min() > window.scale[0] - 0.05
        assert ((w / h) > window.ratio[0] * 0.85).all()
        assert ((w / h) < window.ratio[1] * 1.15).all()


def test_a_crop_reads_its_box_only():
    # Beyond a box Pillow's filter reaches at most its support; a box in the middle of white never sees the black frame.
    pixels = np.zeros((60, 60, 3), np.uint8)
    pixels[20:40, 20:40] = 255
    assert (resize(pixels, (16, 16), "bilinear", (22, 22, 38, 38)) == 255).all()
    np.testing.assert_array_equal(resize(pixels, (20, 20), "bilinear", (20, 20, 40, 40)), pixels[20:40, 20:40])


@pytest.mark.parametrize("shape", [(31, 54, 3), (54, 31, 1), (20, 20, 3)])
def test_without_a_crop_training_shows_what_an_evaluation_does(shape):
    pixels = picture("plain", *shape)
    for interpolation in ("bilinear", "bicubic"):
        for squash in (False, True):
            preprocessing = Preprocessing(size=20, resize=23, interpolation=interpolation, squash=squash)
            found = read(pixels, preprocessing, Window())
            np.testing.assert_array_equal(found, eval_transform(pixels, preprocessing))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF"])
@pytest.mark.parametrize("shape", [(31, 54, 3), (54, 31, 1), (20, 20, 3), (1, 7, 3)])
def test_a_file_that_is_cut_before_it_is_an_array_gives_the_same_pixels(kind, shape):
    file, channels = encode(picture("cut", *shape), kind), shape[2]
    for squash in (False, True):
        preprocessing = Preprocessing(size=20, resize=23, interpolation="bicubic", squash=squash)
        expected = eval_transform(decode(file, channels), preprocessing)
        np.testing.assert_array_equal(read_eval(file, preprocessing, channels), expected)
        np.testing.assert_array_equal(read_eval(decode(file, channels), preprocessing, channels), expected)
    window = Window((0.2, 0.9))
    for seed in range(4):
        rngs = [np.random.default_rng(seed) for _ in range(2)]
        one = read_train(file, preprocessing, rngs[0], window, channels=channels, scaled=False)
        np.testing.assert_array_equal(
            one, read_train(decode(file, channels), preprocessing, rngs[1], window, channels=channels)
        )


def test_a_margin_leaves_room_around_the_networks_square_and_shows_the_whole_short_side():
    pixels = picture("margin", 40, 90, 3)
    found = read(pixels, Preprocessing(size=24, resize=30), Window(margin=6))
    np.testing.assert_array_equal(found, eval_transform(pixels, Preprocessing(size=30, resize=30)))
    assert read(pixels, Preprocessing(size=40, resize=50), Window(margin=0)).shape == (40, 40, 3)
    np.testing.assert_array_equal(read(pixels, Preprocessing(size=40), Window(margin=0)), pixels[:, 25:65])


@pytest.mark.parametrize("name", AUGMENTS)
@pytest.mark.parametrize("shape", [(40, 30, 3), (9, 100, 1), (1, 1, 5), (24, 24, 3)])
def test_every_window_gives_the_square_and_is_a_function_of_its_randomness(name, shape):
    pixels, window = picture(name, *shape), parse(name).window
    before = pixels.copy()
    for interpolation in INTERPOLATIONS:
        preprocessing = Preprocessing(size=24, interpolation=interpolation)
        found = [read(pixels, preprocessing, window, seed) for seed in (5, 5, 6, 7, 8, 9)]
        assert all(one.shape == (24, 24, shape[2]) and one.dtype == np.uint8 for one in found)
        np.testing.assert_array_equal(found[0], found[1])
        if shape == (40, 30, 3):
            assert (len({one.tobytes() for one in found}) > 1) == (window.scale is not None)
    np.testing.assert_array_equal(pixels, before)


def test_a_jpeg_read_at_a_fraction_shows_nearly_the_same_window_and_never_too_few_pixels(monkeypatch):
    file = encode(smooth(600, 900), "JPEG", quality=95)
    heights = []

    def told(*args, cut, **options):
        return decode(*args, cut=lambda picture: heights.append(picture.height) or cut(picture), **options)

    monkeypatch.setattr(transforms, "decode", told)
    for number in range(20):
        window = Window((0.01, 0.6)) if number else Window()
        whole = read(file, Preprocessing(size=64, resize=80), window, number, scaled=False)
        scaled = read(file, Preprocessing(size=64, resize=80), window, number)
        assert np.abs(whole.astype(int) - scaled).max() <= 8
        assert np.abs(whole.astype(float) - scaled).mean() < 1.5
    assert set(heights[::2]) == {600}
    assert {150, 300, 600} <= set(heights[1::2])
    for number, height in enumerate(heights[1::2]):
        if number:
            rng = np.random.default_rng(number)
            left, top, right, bottom = random_box(600, 900, rng, Window((0.01, 0.6)))
            assert min(right - left, bottom - top) * height / 600 >= min(transforms.SPARE * 64, right - left, bottom - top)


def test_an_unknown_interpolation_names_the_nearest():
    with pytest.raises(JaxftError, match=r"'bicubik' \(did you mean 'bicubic'"):
        eval_transform(smooth(5, 6), Preprocessing(interpolation="bicubik"))
