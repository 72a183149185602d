"""From decoded pixels to a square; on the host, with Pillow, before anything is batched.

Neither augmentation but for the window that is read, nor normalisation is here: they run on the device (`jaxft.augment`,
`jaxft.preprocessing.normalize`), so that batches travel as uint8.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxft.decoding.decode import decode
from jaxft.decoding.window import Box, Window, random_box
from jaxft.errors import JaxftError, near
from jaxft.preprocessing import Preprocessing

#: How many times the pixels a side that are wanted a JPEG decoded at a fraction of its size must have, so that the resize that
#: follows has something to average.
SPARE = 1.5

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def resize(pixels: np.ndarray, size: tuple[int, int], interpolation: str, box: Box | None = None) -> np.ndarray:
    """Resizes uint8 [H, W, C] to `size` = (height, width), antialiased as Pillow does; `box` (left, top, right, bottom) first.

    Raises:
      JaxftError: an unknown interpolation.
    """
    if pixels.shape[2] == 3:
        return np.asarray(_resized(Image.fromarray(pixels), size, interpolation, box))
    planes = [_resized(Image.fromarray(pixels[:, :, c]), size, interpolation, box) for c in range(pixels.shape[2])]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def _resized(picture: Image.Image, size: tuple[int, int], interpolation: str, box: Box | None = None) -> Image.Image:
    if interpolation not in _FILTERS:
        raise JaxftError(f"no interpolation is called '{interpolation}'{near(interpolation, _FILTERS)}")
    if box is None and picture.size == (size[1], size[0]):
        return picture
    return picture.resize((size[1], size[0]), _FILTERS[interpolation], box=box)


def eval_transform(pixels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Short side (or both) to `resize`, centre crop of `size`: uint8 [H, W, C] -> [S, S, C]. Rounds as torchvision does."""
    height, width = pixels.shape[:2]
    resized = resize(pixels, _eval_size(height, width, preprocessing), preprocessing.interpolation)
    return _center_crop(resized, preprocessing.size)


def read_eval(image: bytes | Path | np.ndarray, preprocessing: Preprocessing, channels: int = 3, **options: Any) -> np.ndarray:
    """`eval_transform` of a picture that is not decoded yet; `options` are of `jaxft.decoding.decode`."""
    if isinstance(image, np.ndarray):
        return eval_transform(decode(image, channels, **options), preprocessing)

    def cut(picture: Image.Image) -> Image.Image:
        return _resized(picture, _eval_size(picture.height, picture.width, preprocessing), preprocessing.interpolation)

    return _center_crop(decode(image, channels, cut=cut, **options), preprocessing.size)


def _eval_size(height: int, width: int, preprocessing: Preprocessing) -> tuple[int, int]:
    short = preprocessing.resize
    if preprocessing.squash:
        return short, short
    if width <= height:
        return int(short * height / width), short
    return short, int(short * width / height)


def _center_crop(pixels: np.ndarray, size: int) -> np.ndarray:
    height, width = pixels.shape[:2]
    if height < size or width < size:  # a crop larger than the resized picture: black around it, as torchvision
        top, left = max(size - height, 0) // 2, max(size - width, 0) // 2
        bottom, right = max(size - height + 1, 0) // 2, max(size - width + 1, 0) // 2
        pixels = np.pad(pixels, ((top, bottom), (left, right), (0, 0)))
        height, width = pixels.shape[:2]
    top, left = round((height - size) / 2), round((width - size) / 2)
    return pixels[top : top + size, left : left + size]


def read_train(
    image: bytes | Path | np.ndarray,
    preprocessing: Preprocessing,
    rng: np.random.Generator,
    window: Window,
    *,
    channels: int = 3,
    scaled: bool = True,
) -> np.ndarray:
    """Reads what training takes of a picture: uint8 [S, S, C], S of `window.side`.

    Args:
      image: see `jaxft.decoding.decode`.
      preprocessing: size and interpolation.
      rng: decides the window.
      window: which part.
      channels: C.
      scaled: a JPEG may be decoded at 1/2, 1/4 or 1/8, as long as its window keeps `SPARE` times the pixels a side that are
        wanted.

    Raises:
      BadImage: the picture cannot be read.
    """
    side = window.side(preprocessing.size)
    seen: list[tuple[int, int, Box]] = []

    def shrink(height: int, width: int) -> float:
        box = random_box(height, width, rng, window)
        seen.append((height, width, box))
        return min(box[2] - box[0], box[3] - box[1]) / (SPARE * side) if scaled else 1.0

    if window.scale is None:
        if window.margin is not None:
            preprocessing = dataclasses.replace(preprocessing, size=side, resize=side, squash=False)
        return read_eval(image, preprocessing, channels, shrink=shrink)

    def box_in(height: int, width: int) -> Box:
        """The window, in the pixels that were decoded."""
        ((full_height, full_width, box),) = seen
        across, down = width / full_width, height / full_height
        return box[0] * across, box[1] * down, box[2] * across, box[3] * down

    def cut(picture: Image.Image) -> Image.Image:
        box = box_in(picture.height, picture.width)
        return _resized(picture, (side, side), preprocessing.interpolation, box)

    if isinstance(image, np.ndarray):
        pixels = decode(image, channels, shrink=shrink)
        height, width = pixels.shape[:2]
        return resize(pixels, (side, side), preprocessing.interpolation, box_in(height, width))
    return decode(image, channels, shrink=shrink, cut=cut)
