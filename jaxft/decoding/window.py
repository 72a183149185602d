"""Which part of a picture training reads."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

#: Left, top, right, bottom, in pixels.
Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class Window:
    """What is taken of a picture while it is read.

    Attributes:
      scale: share of the picture's area that a random window has, uniform in this range; None is no random window.
      ratio: width over height of the window, log-uniform in this range.
      margin: without a random window, pixels that the square in the middle of the picture is larger than the network's input,
        for a crop on the device: the short side is resized to that. None: what an evaluation shows.
    """

    scale: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    margin: int | None = None

    def side(self, size: int) -> int:
        """Of the square that is read for a network's input of `size`, in pixels."""
        return size + (self.margin or 0)


def random_box(height: int, width: int, rng: np.random.Generator, window: Window) -> Box:
    """The part of a picture that training sees: all of it, or a random window.

    The random resized crop of Szegedy et al. (2015), drawn as torchvision does: ten tries, then the largest centre crop.
    """
    if window.scale is None:
        return 0, 0, width, height
    low, high = (math.log(ratio) for ratio in window.ratio)
    for _ in range(10):
        area = height * width * rng.uniform(*window.scale)
        ratio = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
            return left, top, left + w, top + h
    w, h = width, height
    if width / height < window.ratio[0]:
        h = min(height, round(width / window.ratio[0]))
    elif width / height > window.ratio[1]:
        w = min(width, round(height * window.ratio[1]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
