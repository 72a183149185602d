"""What is kept of each picture of a split."""

import hashlib

import numpy as np
import pytest
from pictures import encode, smooth

from jaxft.data import Arrays, Files
from jaxft.data.looking import Look, look_at
from jaxft.errors import JaxftError


def files(root, **pictures):
    for name, data in pictures.items():
        (root / name).write_bytes(data)
    return Files(root, list(pictures), np.zeros(len(pictures), np.int32))


def test_a_look_says_what_the_file_is(tmp_path):
    upright = smooth(40, 70)
    data = encode(
        np.ascontiguousarray(np.rot90(upright)),
        "JPEG",
        quality=95,
        exif=b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0",
    )
    grey = encode(upright[..., 0], "PNG")
    first, second = look_at(files(tmp_path, a=data, b=grey))
    assert (first.kind, first.height, first.width, first.size, first.orientation) == ("JPEG RGB", 40, 70, len(data), 6)
    assert first.digest == hashlib.sha256(data).digest()
    assert (second.kind, second.orientation, second.grey, first.grey) == ("PNG L", 1, True, False)


def test_a_grey_picture_saved_in_colour_is_without_colour(tmp_path):
    grey = np.repeat(smooth(64, 64)[..., :1], 3, axis=2)
    tinted = np.clip(grey + np.array([9, 0, 0]), 0, 255).astype(np.uint8)
    looks = look_at(files(tmp_path, a=encode(grey, "JPEG", quality=80), b=encode(tinted, "JPEG", quality=80)))
    assert [look.grey for look in looks] == [True, False]


def test_moments_are_those_of_numpy(tmp_path):
    pictures = {f"{n}.png": smooth(20 + n, 31, 3) for n in range(5)}
    looks = look_at(files(tmp_path, **{name: encode(pixels, "PNG") for name, pixels in pictures.items()}), threads=3)
    for look, pixels in zip(looks, pictures.values(), strict=True):
        np.testing.assert_allclose(look.mean, pixels.astype(np.float64).mean((0, 1)), rtol=1e-12)
        np.testing.assert_allclose(look.square, (pixels.astype(np.float64) ** 2).mean((0, 1)), rtol=1e-12)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_large_pictures_are_judged_by_smaller_ones_of_the_same_mean(tmp_path, kind):
    pixels = smooth(700, 1100)
    (look,) = look_at(files(tmp_path, a=encode(pixels, kind)))
    assert (look.height, look.width) == (700, 1100)
    np.testing.assert_allclose(look.mean, pixels.mean((0, 1)), atol=0.5)
    np.testing.assert_allclose(np.sqrt(look.square - look.mean**2), pixels.std((0, 1)), rtol=0.03)


def test_what_cannot_be_read_is_a_reason_in_its_place(tmp_path):
    source = files(tmp_path, a=encode(smooth(9, 9), "PNG"), b=b"", c=b"text", d=encode(smooth(9, 9), "PNG"))
    first, second, third, fourth = look_at(source)
    assert (second, third) == ("the file is empty", "not a picture in a known format")
    assert isinstance(first, Look)
    assert first.digest == fourth.digest


def test_a_source_that_fails_itself_gives_reasons_too():
    class Archive:
        names, labels = ["a", "b"], np.zeros(2, np.int32)

        def __len__(self):
            return 2

        def __getitem__(self, index):
            if index:
                raise OSError(5, "Input/output error")
            raise JaxftError("the shard ends early")

    assert look_at(Archive()) == ["the shard ends early", "cannot be read (Input/output error)"]


def test_arrays_of_any_channels_are_looked_at():
    images = [smooth(12, 15, channels) for channels in (1, 2, 3, 5)] + [smooth(12, 15, 1)[..., 0]]
    looks = look_at(Arrays(images, np.zeros(5, np.int32), list("abcde")))
    assert [look.kind for look in looks] == ["array L", "array 2", "array RGB", "array 5", "array L"]
    assert [len(look.mean) for look in looks] == [1, 2, 3, 5, 3]
    assert len({look.digest for look in looks}) == 5
    assert all(look.small.shape == (16, 16, 3) for look in looks)


def test_strips_and_single_pixels_are_looked_at(tmp_path):
    looks = look_at(
        files(tmp_path, a=encode(smooth(1, 1), "PNG"), b=encode(smooth(1, 5000), "PNG"), c=encode(smooth(3000, 2), "PNG"))
    )
    assert [(look.height, look.width) for look in looks] == [(1, 1), (1, 5000), (3000, 2)]
