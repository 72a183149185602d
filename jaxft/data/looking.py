"""One pass over the pictures of a split: each is decoded once, in threads, and a few numbers of it are kept."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from jaxft.data.duplicates import perceptual_hash
from jaxft.data.sources import Source
from jaxft.decoding.decode import read_picture
from jaxft.decoding.memory import held
from jaxft.errors import JaxftError

#: JPEGs are decoded, and other pictures averaged, until the short side has this many pixels or up to twice as many.
SIDE = 128


@dataclasses.dataclass(frozen=True)
class Look:
    """What is kept of a picture: about a kilobyte, whatever its size.

    Attributes:
      kind: format and mode, as "JPEG RGB"; "array RGB".
      height, width: upright, in full.
      size: bytes of the file; of pixels, their number.
      orientation: EXIF's.
      grey: whether it has no colour.
      digest: sha256 of the file's bytes, or of the pixels and their shape.
      hash, small: see `jaxft.data.duplicates`.
      mean, square: of its pixels and their squares, f64 [C], at about `SIDE`.
    """

    kind: str
    height: int
    width: int
    size: int
    orientation: int
    grey: bool
    digest: bytes
    hash: int
    small: np.ndarray
    mean: np.ndarray
    square: np.ndarray


def look_at(source: Source, *, threads: int | None = None) -> list[Look | str]:
    """For each example a `Look`, or the reason why it cannot be read."""

    def look(index: int) -> Look | str:
        try:
            return _look(source[index][0])
        except JaxftError as error:
            return str(error)
        except OSError as error:  # of a source that reads archives itself
            return f"cannot be read ({error.strerror or error})"

    looks: list[Look | str] = []
    with ThreadPoolExecutor(threads or min(16, os.cpu_count() or 1)) as pool:
        for start in range(0, len(source), 4096):  # a task for each of a million at once would weigh more than the looks
            looks += pool.map(look, range(start, min(start + 4096, len(source))))
    return looks


def _look(image: bytes | Path | np.ndarray) -> Look:
    channels = image.shape[2] if isinstance(image, np.ndarray) and image.ndim == 3 else 3
    picture = read_picture(image, channels, shrink=lambda height, width: min(height, width) / SIDE)
    digest, size = _digest(image)
    pixels = _reduced(picture.pixels)
    colour = pixels if channels == 3 else np.repeat(pixels[:, :, :1], 3, axis=2)
    small = np.asarray(Image.fromarray(colour).resize((32, 32), Image.Resampling.BOX))
    hashed, kept = perceptual_hash(small)
    planes = np.ascontiguousarray(np.moveaxis(pixels, 2, 0)).reshape(channels, -1).astype(np.float64)
    return Look(
        kind=f"{picture.kind} {picture.mode}",
        height=picture.height,
        width=picture.width,
        size=size,
        orientation=picture.orientation,
        # Of a grey JPEG that was saved in colour the channels differ by rounding.
        grey=bool(np.ptp(small.astype(np.int16), axis=2).max() <= 2),
        digest=digest,
        hash=hashed,
        small=kept,
        # Sums of whole numbers below 2**53: exact, in whatever order.
        mean=planes.sum(1) / planes.shape[1],
        square=np.einsum("cp,cp->c", planes, planes) / planes.shape[1],
    )


def _digest(image: bytes | Path | np.ndarray) -> tuple[bytes, int]:
    """The sha256 and the number of its bytes."""
    if isinstance(image, Path):
        with image.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest(), file.tell()
    if isinstance(image, bytes):
        return hashlib.sha256(image).digest(), len(image)
    hashed = hashlib.sha256(str(image.shape).encode())
    hashed.update(np.ascontiguousarray(image).data)
    return hashed.digest(), image.nbytes


def _reduced(pixels: np.ndarray) -> np.ndarray:
    """Averaged over squares until the short side is below `2 * SIDE`."""
    by = min(pixels.shape[:2]) // SIDE
    if by < 2:
        return pixels
    with held(pixels.size * 2):
        layers = [Image.fromarray(pixels[:, :, channel]).reduce(by) for channel in range(pixels.shape[2])]
        return np.stack([np.asarray(layer) for layer in layers], axis=2)
