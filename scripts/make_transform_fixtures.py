"""Writes tests/decoding/fixtures/transforms.npz: what torchvision makes of the seeded pictures of tests/data/pictures.py.

Needs torch and torchvision, in an environment of its own:  python scripts/make_transform_fixtures.py
"""

import hashlib
import sys
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from torchvision import transforms

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "data"))
import pictures  # noqa: E402

OUT = ROOT / "tests" / "decoding" / "fixtures" / "transforms.npz"
DRAWS = 20_000


def resize_and_crop(pixels, resize, size, interpolation):
    """torchvision's evaluation transform on a Pillow picture, uint8 [S, S, C]."""
    mode = transforms.InterpolationMode(interpolation)
    transform = transforms.Compose([transforms.Resize(resize, mode), transforms.CenterCrop(size)])
    found = np.asarray(transform(Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)))
    return found.reshape(size, size, -1)


def crops(height, width, scale, ratio):
    """DRAWS crops of torchvision's RandomResizedCrop: left, top, width, height."""
    empty = Image.new("L", (width, height))
    found = [transforms.RandomResizedCrop.get_params(empty, scale, ratio) for _ in range(DRAWS)]
    return np.array([(left, top, w, h) for top, left, h, w in found])


def main():
    torch.manual_seed(0)
    found = {}
    for name, (height, width, channels, resize, size) in pictures.CASES.items():
        for interpolation in pictures.INTERPOLATIONS:
            pixels = pictures.picture(name, height, width, channels)
            found[f"{interpolation}|{name}"] = resize_and_crop(pixels, resize, size, interpolation)
    for name, (height, width, channels, resize, size) in pictures.LARGE.items():
        for interpolation in pictures.INTERPOLATIONS:
            square = resize_and_crop(pictures.picture(name, height, width, channels), resize, size, interpolation)
            found[f"{interpolation}|{name}"] = np.array(hashlib.sha256(square.tobytes()).hexdigest())
    for name, (height, width, scale, ratio) in pictures.CROPS.items():
        figures = pictures.crop_figures(crops(height, width, scale, ratio), height, width)
        found[f"crop|{name}|quantiles"] = np.quantile(figures, pictures.SHARES, axis=1).T.astype(np.float32)
        found[f"crop|{name}|means"] = figures.mean(axis=1)
        print(name, figures.mean(axis=1).round(4))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(OUT, **found)
    print(OUT.name, OUT.stat().st_size)


if __name__ == "__main__":
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}")
    main()
