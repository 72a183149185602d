"""Near pictures are found as an honest comparison of every pair would find them, and others are not."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from jaxft.data.duplicates import NEAR, alike, find_groups, joined, near_pairs, perceptual_hash


def scene(seed, side=160):
    """A picture with the statistics of a photograph: random waves whose strength falls with their frequency, uint8 RGB."""
    rng = np.random.default_rng(seed)
    strength = (1 + np.hypot(*np.meshgrid(np.fft.fftfreq(side) * side, np.fft.fftfreq(side) * side))) ** -1.5
    layers = []
    shared = np.fft.fft2(rng.standard_normal((side, side)))
    for _ in range(3):
        own = np.fft.fft2(rng.standard_normal((side, side)))
        layers.append(np.fft.ifft2((shared + 0.5 * own) * strength).real)
    pixels = np.stack(layers, -1)
    return Image.fromarray(np.clip(127 + 45 * pixels / pixels.std(), 0, 255).astype(np.uint8))


def hashed(image):
    return perceptual_hash(np.asarray(image.resize((32, 32), Image.Resampling.BOX)))


def saved_anew(image):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=50)
    return Image.open(file).convert("RGB")


CHANGES = {
    "saved anew": saved_anew,
    "halved": lambda image: image.resize((80, 80), Image.Resampling.BICUBIC),
    "cut by 2%": lambda image: image.crop((3, 3, 157, 157)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.8),
}


@pytest.fixture(scope="module")
def scenes():
    return [scene(seed) for seed in range(60)]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_picture_is_near_its_original(scenes, change):
    pairs = [(hashed(image), hashed(CHANGES[change](image))) for image in scenes]
    near = [(one[0] ^ other[0]).bit_count() <= NEAR for one, other in pairs]
    kept = np.stack([picture for pair in pairs for _, picture in pair])
    same = alike(kept, np.arange(len(kept)).reshape(-1, 2))
    assert np.mean(np.array(near) & same) >= 0.95


def test_different_pictures_are_not_near(scenes):
    hashes = np.array([hashed(image)[0] for image in scenes], np.uint64)
    assert len(near_pairs(hashes, NEAR)[0]) == 0


def test_a_mirrored_or_turned_picture_is_another():
    image = scene(1)
    for turned in (image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), image.rotate(90)):
        assert (hashed(image)[0] ^ hashed(turned)[0]).bit_count() > NEAR


def every_pair(hashes, distance):
    values = hashes.tolist()
    return [[i, j] for i, j in itertools.combinations(range(len(values)), 2) if (values[i] ^ values[j]).bit_count() <= distance]


@pytest.mark.parametrize("distance", [0, 1, 3, 4, 7, 8, 11])
def test_the_search_finds_what_comparing_every_pair_finds(distance):
    rng = np.random.default_rng(distance)
    hashes = rng.integers(0, 2**64, 300, dtype=np.uint64)
    for place in range(150):  # planted ones, at every distance from 0 on
        flips = rng.permutation(64)[: place % 13]
        hashes[150 + place] = hashes[place] ^ np.uint64(sum(1 << int(bit) for bit in flips))
    found, whole = near_pairs(hashes, distance)
    assert whole
    assert found.tolist() == every_pair(hashes, distance)
    assert len(found) > 10


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_hashes_have_few_pairs(count):
    found, whole = near_pairs(np.zeros(count, np.uint64), 8)
    assert found.tolist() == ([[0, 1]] if count == 2 else [])
    assert whole


def test_a_search_among_pictures_that_all_look_alike_ends():
    found, whole = near_pairs(np.zeros(3000, np.uint64), 8, most=10_000)
    assert not whole
    assert len(found) == 10_000


def test_flat_pictures_are_alike_only_in_one_colour():
    pictures = np.stack([np.full((16, 16, 3), value, np.uint8) for value in (0, 2, 90)])
    assert alike(pictures, np.array([[0, 1], [0, 2]])).tolist() == [True, False]
    assert alike(pictures, np.zeros((0, 2), int)).tolist() == []


def test_pairs_are_joined_to_groups_in_order():
    pairs = np.array([[5, 9], [1, 2], [9, 3], [7, 8], [2, 1]])
    assert joined(10, pairs) == [[1, 2], [3, 5, 9], [7, 8]]
    assert joined(3, np.zeros((0, 2), int)) == []


def test_copies_come_along_into_a_group_of_near_ones():
    first, second = hashed(scene(1)), hashed(saved_anew(scene(1)))
    other = hashed(scene(2))
    looks = [first, other, second, first, other]
    digests = np.array([b"a", b"o", b"b", b"a", b"o"], "S32")
    arguments = digests, np.array([hash_ for hash_, _ in looks], np.uint64), np.stack([picture for _, picture in looks])
    assert find_groups(*arguments, 8) == ([[0, 3], [1, 4]], [[0, 2, 3]], True)
    assert find_groups(*arguments, None) == ([[0, 3], [1, 4]], [], True)
