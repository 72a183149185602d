"""What decoding a JPEG at the size that is needed saves, one thread: photographs in full against a half, a quarter, an eighth.

    python benchmarks/scaled_decoding.py [FILE.jpg ...]

Without files a picture of 4000 x 3000 pixels with the statistics of a photograph is drawn. Rounds are interleaved, the fastest
of each is taken; beside it the largest and mean difference from the full picture averaged over squares.
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path

import numpy as np
from PIL import Image

from jaxft.data import decode


def drawn() -> bytes:
    rng = np.random.default_rng(0)
    octaves = [Image.fromarray(rng.integers(0, 256, (3 << n, 4 << n, 3), dtype=np.uint8)) for n in range(2, 10)]
    layers = [np.asarray(octave.resize((4000, 3000), Image.Resampling.BICUBIC), np.float32) for octave in octaves]
    pixels = sum((layer - 128) * 0.62**place for place, layer in enumerate(layers))
    file = io.BytesIO()
    Image.fromarray(np.clip(128 + pixels, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    for data in [file.read_bytes() for file in arguments.files] or [drawn()]:
        seconds: dict[int, list[float]] = {by: [] for by in (1, 2, 4, 8)}
        for _ in range(arguments.rounds):
            for by, times in seconds.items():
                start = time.perf_counter()
                decode(data, shrink=lambda height, width, by=by: by)
                times.append(time.perf_counter() - start)
        full = decode(data)
        print(f"{full.shape[1]}x{full.shape[0]}, {len(data):,} bytes")
        for by, times in seconds.items():
            small = decode(data, shrink=lambda height, width, by=by: by)
            height, width = full.shape[0] // by, full.shape[1] // by
            squares = full[: height * by, : width * by].reshape(height, by, width, by, 3).mean((1, 3))
            gap = np.abs(small[:height, :width] - squares)
            speed = f"{1000 * min(times):7.1f} ms  {min(seconds[1]) / min(times):4.1f} times"
            print(f"  1/{by}  {speed}  differs by {gap.max():.0f} at most, {gap.mean():.2f} on average")


if __name__ == "__main__":
    main()
