"""From decoded pixels to the square a network sees; on the host, with Pillow, before anything is batched.

Normalisation is not here: it runs on the device (`jaxft.preprocessing.normalize`), so that batches travel as uint8.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from PIL import Image

from jaxft.errors import JaxftError, near
from jaxft.preprocessing import Preprocessing

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclasses.dataclass(frozen=True)
class Augment:
    """What training changes in a picture.

    Attributes:
      crop_scale: share of the picture's area that a random crop keeps, uniform in this range; None crops nothing.
      crop_ratio: width over height of the crop, log-uniform in this range.
      flip: mirror half of the pictures left to right.
      pad: pixels of black border added before a random crop of the network's size, after a plain resize (CIFAR's usual).
    """

    crop_scale: tuple[float, float] | None = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    pad: int = 0


AUGMENTS = {
    "none": Augment(crop_scale=None, flip=False),
    "crop_flip": Augment(),
    "crop": Augment(flip=False),
    "mild_flip": Augment(crop_scale=(0.5, 1.0)),
    "light": Augment(crop_scale=(0.7, 1.0), crop_ratio=(0.9, 1 / 0.9), flip=False),
    "pad_flip": Augment(crop_scale=None, pad=4),
}


def find_augment(augment: str | Augment) -> Augment:
    """An augmentation by name.

    Raises:
      JaxftError: no such name.
    """
    if isinstance(augment, Augment):
        return augment
    if augment not in AUGMENTS:
        raise JaxftError(f"no augmentation is called '{augment}'{near(augment, AUGMENTS)}; there are {', '.join(AUGMENTS)}")
    return AUGMENTS[augment]


def resize(
    pixels: np.ndarray, size: tuple[int, int], interpolation: str, box: tuple[float, float, float, float] | None = None
) -> np.ndarray:
    """Resizes uint8 [H, W, C] to `size` = (height, width), antialiased as Pillow does; `box` (left, top, right, bottom) first.

    Raises:
      JaxftError: an unknown interpolation.
    """
    if interpolation not in _FILTERS:
        raise JaxftError(f"no interpolation is called '{interpolation}'{near(interpolation, _FILTERS)}")
    if box is None and pixels.shape[:2] == size:
        return pixels
    width_height, method = (size[1], size[0]), _FILTERS[interpolation]
    if pixels.shape[2] == 3:
        return np.asarray(Image.fromarray(pixels).resize(width_height, method, box=box))
    planes = [
        np.asarray(Image.fromarray(pixels[:, :, c]).resize(width_height, method, box=box)) for c in range(pixels.shape[2])
    ]
    return np.stack(planes, axis=-1)


def eval_transform(pixels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Short side (or both) to `resize`, centre crop of `size`: uint8 [H, W, C] -> [S, S, C]. Rounds as torchvision does."""
    height, width = pixels.shape[:2]
    short = preprocessing.resize
    if preprocessing.squash:
        new = (short, short)
    elif width <= height:
        new = (int(short * height / width), short)
    else:
        new = (short, int(short * width / height))
    resized = resize(pixels, new, preprocessing.interpolation)
    return _center_crop(resized, preprocessing.size)


def _center_crop(pixels: np.ndarray, size: int) -> np.ndarray:
    height, width = pixels.shape[:2]
    if height < size or width < size:  # a crop larger than the resized picture: black around it, as torchvision
        top, left = max(size - height, 0) // 2, max(size - width, 0) // 2
        bottom, right = max(size - height + 1, 0) // 2, max(size - width + 1, 0) // 2
        pixels = np.pad(pixels, ((top, bottom), (left, right), (0, 0)))
        height, width = pixels.shape[:2]
    top, left = round((height - size) / 2), round((width - size) / 2)
    return pixels[top : top + size, left : left + size]


def train_transform(pixels: np.ndarray, preprocessing: Preprocessing, rng: np.random.Generator, augment: Augment) -> np.ndarray:
    """Random crop, resize and flip: uint8 [H, W, C] -> [S, S, C]. `rng` decides everything."""
    side = preprocessing.size
    height, width = pixels.shape[:2]
    box = None if augment.crop_scale is None else _random_box(height, width, rng, augment)
    found = resize(pixels, (side, side), preprocessing.interpolation, box)
    if augment.pad:
        found = np.pad(found, ((augment.pad, augment.pad), (augment.pad, augment.pad), (0, 0)))
        top, left = rng.integers(0, 2 * augment.pad + 1, 2)
        found = found[top : top + side, left : left + side]
    if augment.flip and rng.random() < 0.5:
        found = found[:, ::-1]
    return found


def _random_box(height: int, width: int, rng: np.random.Generator, augment: Augment) -> tuple[float, float, float, float]:
    """The random resized crop of Szegedy et al. (2015), drawn as torchvision does: ten tries, then the largest centre crop."""
    assert augment.crop_scale is not None
    low, high = (math.log(ratio) for ratio in augment.crop_ratio)
    for _ in range(10):
        area = height * width * rng.uniform(*augment.crop_scale)
        ratio = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
            return left, top, left + w, top + h
    w, h = width, height
    if width / height < augment.crop_ratio[0]:
        h = min(height, round(width / augment.crop_ratio[0]))
    elif width / height > augment.crop_ratio[1]:
        w = min(width, round(height * augment.crop_ratio[1]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
