"""What a network expects of an image. It travels with the weights and reaches the data pipeline by itself.

No JAX is imported here: processes that decode pictures load this module (`jaxft.decoding`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import jax

    from jaxft.typing import ApplyFn, ModelState, Outputs, Params, Trains

INTERPOLATIONS = ("bilinear", "bicubic", "lanczos", "nearest")


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Geometry and normalisation of a network's input.

    Attributes:
      size: side of the square the network sees, in pixels.
      resize: length the short side is resized to before the centre crop of `size`, in pixels (evaluation only).
      interpolation: one of `INTERPOLATIONS`, antialiased as Pillow does it.
      mean, std: a value a channel, for pixels in 0..1.
      squash: in evaluation both sides are resized to `resize`, whatever the picture's shape.
    """

    size: int = 224
    resize: int = 256
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    squash: bool = False

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `dataclasses.asdict` through JSON, which has no tuples.

        Raises:
          TypeError: other fields.
        """
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
        return cls(**values)

    def with_size(self, size: int) -> Preprocessing:
        """The same at another input size: the share of the image that the centre crop keeps stays."""
        return dataclasses.replace(self, size=size, resize=round(self.resize * size / self.size))

    def with_channels(self, channels: int) -> Preprocessing:
        """The same for 1 channel (the channels' average) or n channels (the given ones in turn)."""
        if channels == len(self.mean):
            return self
        if channels == 1:
            mean: tuple[float, ...] = (float(np.mean(self.mean)),)
            std: tuple[float, ...] = (float(np.mean(self.std)),)
        else:
            turns = [index % len(self.mean) for index in range(channels)]
            mean, std = tuple(self.mean[t] for t in turns), tuple(self.std[t] for t in turns)
        return dataclasses.replace(self, mean=mean, std=std)


#: Pixels of 0 to 255 minus a mean, as Caffe's networks wanted them and Keras' conversions of these do. In RGB, as all is here.
CAFFE = Preprocessing(mean=(123.68 / 255, 116.779 / 255, 103.939 / 255), std=(1 / 255,) * 3)


def normalize(image: jax.Array, preprocessing: Preprocessing) -> jax.Array:
    """Turns uint8 pixels [..., C] into f32 `(x / 255 - mean) / std` [..., C], in one subtraction and one division."""
    mean = np.asarray(np.array(preprocessing.mean) * 255, np.float32)
    std = np.asarray(np.array(preprocessing.std) * 255, np.float32)
    return (image.astype(np.float32) - mean) / std


def on_pixels(apply: ApplyFn, preprocessing: Preprocessing) -> ApplyFn:
    """Wraps a network so that it takes uint8 pixels [B, H, W, C]: normalisation runs on the device, inside the step."""

    def apply_to_pixels(
        params: Params, model_state: ModelState, image: jax.Array, *, train: bool | Trains, rng: jax.Array | None
    ) -> tuple[Outputs, ModelState]:
        return apply(params, model_state, normalize(image, preprocessing), train=train, rng=rng)

    return apply_to_pixels
