"""Writes tests/augment/fixtures/torchvision.npz: what torchvision makes of two photographs at fixed parameters.

Needs torch, torchvision and scikit-learn, in an environment of its own:  python scripts/make_augment_fixtures.py

Operations run on float images, so that nothing is rounded; posterize and equalize, which are defined by whole values, on uint8.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_sample_images
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "augment"))
import augment_cases as cases  # noqa: E402

OUT = ROOT / "tests" / "augment" / "fixtures" / "torchvision.npz"
BILINEAR = InterpolationMode.BILINEAR
MIXES = 20_000


def affine(image, degrees, dx, dy, scale, shear):
    # torchvision turns clockwise here, and counter-clockwise in rotate.
    return F.affine(image, -degrees, [dx, dy], scale, list(shear), interpolation=BILINEAR)


def perspective(image, moved):
    height, width = image.shape[-2:]
    corners = [[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]
    return F.perspective(image, corners, [list(point) for point in moved], interpolation=BILINEAR)


def blur(image, sigma, radius):
    return F.gaussian_blur(image, [2 * radius + 1] * 2, [sigma] * 2)


def erase(image, window):
    left, top, width, height = window
    return F.erase(image, top, left, height, width, torch.zeros(3, 1, 1))


OPERATIONS = {
    "rotate": lambda image, degrees, interpolation: F.rotate(image, degrees, interpolation=InterpolationMode(interpolation)),
    "affine": affine,
    "perspective": perspective,
    "brightness": lambda image, factor: F.adjust_brightness(image, factor),
    "contrast": lambda image, factor: F.adjust_contrast(image, factor),
    "saturation": lambda image, factor: F.adjust_saturation(image, factor),
    "hue": lambda image, turn: F.adjust_hue(image, turn),
    "grey": lambda image: F.rgb_to_grayscale(image, 3),
    "invert": F.invert,
    "posterize": F.posterize,
    "solarize": lambda image, threshold: F.solarize(image, threshold / 255),
    "autocontrast": F.autocontrast,
    "equalize": F.equalize,
    "sharpness": lambda image, factor: F.adjust_sharpness(image, factor),
    "blur": blur,
    "erase": erase,
}
WHOLE = ("posterize", "equalize")


def applied(photo, function, whole):
    """`function` on [3, H, W]; the result as f32 [H, W, 3] of 0 to 255."""
    image = torch.from_numpy(photo).permute(2, 0, 1)
    image = function(image if whole else image.to(torch.float64) / 255)
    found = image.permute(1, 2, 0).numpy().astype(np.float64)
    return found if whole else found * 255


def main():
    torch.manual_seed(0)
    pictures = load_sample_images()
    found = {}
    for photo_name in cases.PARTS:
        photo = cases.photograph(photo_name, pictures)
        for name, (operation, options) in cases.CASES.items():
            result = applied(photo, lambda image, o=operation, p=options: OPERATIONS[o](image, **p), operation in WHOLE)
            found[f"{photo_name}|{name}"] = cases.kept(result, name)
        policies = {"rand": v2.RandAugment(interpolation=BILINEAR), "trivial": v2.TrivialAugmentWide(interpolation=BILINEAR)}
        for policy, transform in policies.items():
            for name, (theirs, signed) in cases.POLICY.items():
                for level in cases.BINS:
                    magnitudes = transform._AUGMENTATION_SPACE[theirs][0](31, *photo.shape[:2])
                    strength = 0.0 if magnitudes is None else float(magnitudes[level])
                    for sign in (1, -1) if signed else (1,):
                        result = applied(
                            photo,
                            lambda image, t=transform, n=theirs, s=sign * strength: t._apply_image_or_video_transform(
                                image, n, s, interpolation=BILINEAR, fill={}
                            ),
                            name in WHOLE,
                        )
                        key = f"{policy}|{name}|{sign * level}"
                        found[f"{photo_name}|{key}"] = cases.kept(result, key)[:500]
    mix = v2.CutMix(alpha=1.0, num_classes=2)
    batch = [torch.zeros(2, 3, 60, 80)]
    shares = np.array([mix.make_params(batch)["lam_adjusted"] for _ in range(MIXES)])
    found["cutmix shares"] = np.quantile(shares, np.linspace(0.01, 0.99, 99)).astype(np.float32)
    erasing = v2.RandomErasing(p=1.0)
    boxes = [erasing.make_params([torch.zeros(3, 60, 80)]) for _ in range(MIXES)]
    areas = np.array([box["h"] * box["w"] for box in boxes]) / 4800
    found["erased areas"] = np.quantile(areas, np.linspace(0.01, 0.99, 99)).astype(np.float32)
    np.savez_compressed(OUT, **found)
    print(OUT.name, OUT.stat().st_size, len(found))


if __name__ == "__main__":
    main()
