"""Files of the size of photographs, made of small pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from jaxft.errors import JaxftError

WIDTH, HEIGHT, TILE, QUALITY = 1600, 1200, 400, 92
#: Bytes of a file.
LEAST, MOST = 450_000, 550_000


def make_photographs(folder: Path, pictures: Sequence[Path], *, count: int, seed: int = 0) -> Path:
    """Writes JPEGs of 1600 x 1200 pixels, about 500 kB each, into two class folders; returns the folder.

    Each is a mosaic of enlarged pictures, which gives it colours and edges, with as much noise as makes the file as large as a
    camera's.

    Args:
      folder: of the class folders.
      pictures: files to choose from.
      count: of photographs.
      seed: of all that is drawn.

    Raises:
      JaxftError: there are no pictures, or they are so detailed that every mosaic is larger.
    """
    if not pictures:
        raise JaxftError("photographs are made of a folder's pictures, and the first one holds none")
    rng = np.random.default_rng(seed)
    deviation = 4.0  # of 255 values, of the noise
    for number in range(count):
        chosen = rng.choice(len(pictures), (WIDTH // TILE) * (HEIGHT // TILE))
        content, deviation = _with_noise(_mosaic([pictures[place] for place in chosen]), rng, deviation)
        file = folder / f"class{number % 2}" / f"{number:04d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return folder


def _mosaic(pictures: Sequence[Path]) -> np.ndarray:
    """f32 [HEIGHT, WIDTH, 3]."""
    canvas = Image.new("RGB", (WIDTH, HEIGHT))
    for number, picture in enumerate(pictures):
        row, column = divmod(number, WIDTH // TILE)
        with Image.open(picture) as opened:
            tile = opened.convert("RGB").resize((TILE, TILE), Image.Resampling.BICUBIC)
        canvas.paste(tile, (column * TILE, row * TILE))
    return np.asarray(canvas, np.float32)


def _with_noise(pixels: np.ndarray, rng: np.random.Generator, deviation: float) -> tuple[bytes, float]:
    """(the encoded picture, the deviation of its noise), from a first guess of that."""
    noise = rng.standard_normal((*pixels.shape[:2], 1), np.float32)
    for _ in range(12):
        file = io.BytesIO()
        Image.fromarray(np.clip(pixels + deviation * noise, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=QUALITY)
        if LEAST <= file.tell() <= MOST:
            return file.getvalue(), deviation
        # Bytes grow more slowly than the noise.
        deviation *= ((LEAST + MOST) / 2 / file.tell()) ** 1.5
    raise JaxftError(
        f"no noise makes a mosaic a file of {LEAST:,} to {MOST:,} bytes (the last had {file.tell():,}): give a folder of "
        "smaller or less detailed pictures first, or --photographs=0"
    )
