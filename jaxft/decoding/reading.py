"""How an example's picture is read, in whatever thread or process."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from jaxft.decoding.transforms import read_eval, read_train
from jaxft.decoding.window import Window
from jaxft.preprocessing import Preprocessing
from jaxft.streams import augment_rng


@dataclasses.dataclass(frozen=True)
class Reading:
    """How pictures become squares: all but a picture and its randomness.

    Attributes:
      preprocessing: size and interpolation.
      channels: C.
      window: what training takes of a picture; None is an evaluation.
      seed: of the windows.
      scaled: see `read_train`.
    """

    preprocessing: Preprocessing
    channels: int = 3
    window: Window | None = None
    seed: int = 0
    scaled: bool = True

    @property
    def side(self) -> int:
        """Of the square that is read, in pixels."""
        return self.preprocessing.size if self.window is None else self.window.side(self.preprocessing.size)

    def __call__(self, image: bytes | Path | np.ndarray, shown: int, index: int) -> np.ndarray:
        """Reads the picture of example `index`, which was shown `shown` times before: uint8 [S, S, C].

        Raises:
          BadImage: it cannot be read.
        """
        if self.window is None:
            return read_eval(image, self.preprocessing, self.channels)
        rng = augment_rng(self.seed, shown, index)
        return read_train(image, self.preprocessing, rng, self.window, channels=self.channels, scaled=self.scaled)


#: A picture, how often its example was shown before, the example.
Task = tuple[bytes | Path | np.ndarray, int, int]
