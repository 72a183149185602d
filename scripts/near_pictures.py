"""How well near duplicates are found among the pictures of a folder: the figures of docs/pictures.md.

    python scripts/near_pictures.py FOLDER [FOLDER ...] [--most 1000]

Each picture is changed in known ways; a change is found if the changed picture would be reported beside its original. The
pairs found among the unchanged ones are listed: look at them, they are real duplicates or false alarms.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from jaxft.data.duplicates import NEAR, alike, near_pairs, perceptual_hash
from jaxft.data.sources import find_pictures
from jaxft.decoding.decode import decode


def saved(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def scaled(image: Image.Image, by: float) -> Image.Image:
    return image.resize((max(1, round(image.width * by)), max(1, round(image.height * by))), Image.Resampling.BICUBIC)


def cut(image: Image.Image, share: float) -> Image.Image:
    x, y = round(image.width * share), round(image.height * share)
    return image.crop((x, y, image.width - x, image.height - y))


CHANGES = {
    "saved at quality 50": lambda image: saved(image, 50),
    "half the size": lambda image: scaled(image, 0.5),
    "twice the size": lambda image: scaled(image, 2),
    "cut by 2% a side": lambda image: cut(image, 0.02),
    "cut by 5% a side": lambda image: cut(image, 0.05),
    "brighter by 25%": lambda image: ImageEnhance.Brightness(image).enhance(1.25),
    "darker by 25%": lambda image: ImageEnhance.Brightness(image).enhance(0.75),
    "less contrast, 80%": lambda image: ImageEnhance.Contrast(image).enhance(0.8),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def hashed(image: Image.Image) -> tuple[int, np.ndarray]:
    return perceptual_hash(np.asarray(image.resize((32, 32), Image.Resampling.BOX)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--most", type=int, default=1000)
    arguments = parser.parse_args()
    for folder in arguments.folders:
        paths = find_pictures(folder)
        paths = [paths[i] for i in sorted(np.random.default_rng(0).permutation(len(paths))[: arguments.most].tolist())]
        images = [Image.fromarray(decode(path)) for path in paths]
        first = [hashed(image) for image in images]
        hashes, kept = np.array([bits for bits, _ in first], np.uint64), np.stack([picture for _, picture in first])
        pairs, _ = near_pairs(hashes, NEAR)
        found = pairs[alike(kept, pairs)]
        print(f"{folder}: {len(paths)} pictures; unchanged: {len(pairs)} pairs by hash, {len(found)} reported")
        for one, other in found[:10]:
            print(f"  {paths[one]}  {paths[other]}")
        for title, change in CHANGES.items():
            second = [hashed(change(image)) for image in images]
            near = np.bitwise_count(hashes ^ np.array([bits for bits, _ in second], np.uint64)) <= NEAR
            both = np.concatenate([kept, np.stack([picture for _, picture in second])])
            same = alike(both, np.arange(2 * len(paths)).reshape(2, -1).T)
            print(f"  {title:20} {np.mean(near & same):6.1%}  (by hash {np.mean(near):6.1%})")


if __name__ == "__main__":
    main()
