"""torchvision's side of `augment_speed.py`: `transforms.v2` on uint8 tensors, image by image. Needs torch and torchvision.

A work is {"operation", "batch", "size", "threads"}.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torchvision
from serve import Missing, Prepared, serve, timed, warmed
from torchvision.transforms import InterpolationMode, v2

CLASSES = 1000
BILINEAR = InterpolationMode.BILINEAR
#: Of one image.
OPERATIONS: dict[str, Callable[[int], v2.Transform]] = {
    "flip": lambda size: v2.RandomHorizontalFlip(0.5),
    "rotation": lambda size: v2.RandomRotation(30, BILINEAR),
    "affine": lambda size: v2.RandomAffine(30, (0.1, 0.1), (0.8, 1.2), (-10, 10, -10, 10), BILINEAR),
    "perspective": lambda size: v2.RandomPerspective(0.5, p=1.0, interpolation=BILINEAR),
    "resized crop": lambda size: v2.RandomResizedCrop(size, antialias=True),
    "color jitter": lambda size: v2.ColorJitter(0.4, 0.4, 0.4, 0.1),
    "grey": lambda size: v2.RandomGrayscale(1.0),
    "blur": lambda size: v2.GaussianBlur(17, (0.1, 2.0)),
    "noise": lambda size: v2.GaussianNoise(sigma=10 / 255),
    "posterize": lambda size: v2.RandomPosterize(4, p=1.0),
    "solarize": lambda size: v2.RandomSolarize(128, p=1.0),
    "equalize": lambda size: v2.RandomEqualize(p=1.0),
    "autocontrast": lambda size: v2.RandomAutocontrast(p=1.0),
    "sharpness": lambda size: v2.RandomAdjustSharpness(2, p=1.0),
    "erasing": lambda size: v2.RandomErasing(p=1.0),
    "RandAugment": lambda size: v2.RandAugment(interpolation=BILINEAR),
    "TrivialAugment": lambda size: v2.TrivialAugmentWide(interpolation=BILINEAR),
    "AugMix": lambda size: v2.AugMix(interpolation=BILINEAR),
}
#: Of a batch and its labels.
MIXING = {"mixup": (v2.MixUp, 0.2), "CutMix": (v2.CutMix, 1.0)}


def prepare(work: dict[str, Any]) -> Prepared:
    torch.manual_seed(0)
    name, count, size = work["operation"], work["batch"], work["size"]
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
    labels = torch.randint(CLASSES, (count,))
    started = time.perf_counter()
    if name in MIXING:
        make, alpha = MIXING[name]
        mix, as_float = make(alpha=alpha, num_classes=CLASSES), v2.ToDtype(torch.float32)
        return _timed(lambda: mix(as_float(images), labels), work, started)
    if name not in OPERATIONS:
        raise Missing(f"torchvision has no '{name}'")
    change = OPERATIONS[name](size)
    return _timed(lambda: torch.stack([change(image) for image in images]), work, started)


def _timed(call: Callable[[], Any], work: dict[str, Any], started: float) -> Prepared:
    def alone() -> None:
        torch.set_num_threads(work["threads"])  # another work of this process may have another number
        call()

    return warmed(timed(alone), work["batch"], None, started)


def versions() -> dict[str, str]:
    return {"torch": torch.__version__, "torchvision": torchvision.__version__}


if __name__ == "__main__":
    serve(prepare, versions=versions)
