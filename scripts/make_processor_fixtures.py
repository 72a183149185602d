"""Writes tests/weights/fixtures/processors.json: what transformers' image processors make of a seeded picture.

Needs torch, torchvision and transformers, in an environment of its own:  python scripts/make_processor_fixtures.py
"""

import json
import sys
from pathlib import Path

import numpy as np
import transformers
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "data"))
import pictures  # noqa: E402

OUT = ROOT / "tests" / "weights" / "fixtures" / "processors.json"
#: Squares of 48 pixels are cut from the middle of a whole number of pixels: of half a pixel Pillow's processors make another
#: one than transformers' default ones, which are torchvision's.
HEIGHT, WIDTH, KEPT = 150, 200, 60
SQUARE, LARGER, EDGE = {"height": 48, "width": 48}, {"height": 56, "width": 56}, {"shortest_edge": 56}
CASES = {
    "ViT": {"size": SQUARE},
    "ViT, pixels from 0 to 2": {"size": SQUARE, "rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [0.5] * 3},
    "DeiT": {"size": LARGER, "crop_size": SQUARE},
    "Bit": {"size": EDGE, "crop_size": SQUARE},
    "CLIP": {"size": {"shortest_edge": 48}, "crop_size": SQUARE},
    "ConvNext, cropped": {"size": {"shortest_edge": 48}, "image_std": [0.2, 0.3, 0.4]},
    "ConvNext, squashed": {"size": {"shortest_edge": 384}},
    "EfficientNet": {"size": SQUARE, "image_std": [0.5, 0.4, 0.3]},
    "EfficientNet, normalised once": {"size": SQUARE, "image_std": [0.5, 0.4, 0.3], "include_top": False},
    "Siglip": {"size": SQUARE},
    "MobileNetV2": {"size": EDGE, "crop_size": SQUARE},
}  # fmt: skip


def main():
    picture = Image.fromarray(pictures.picture("processors", HEIGHT, WIDTH, 3))
    found = {}
    for case, options in CASES.items():
        processor = getattr(transformers, f"{case.partition(',')[0]}ImageProcessorPil")(**options)
        pixels = np.asarray(processor(picture, return_tensors="np")["pixel_values"][0], np.float64)
        config = {key: value for key, value in json.loads(processor.to_json_string()).items() if value is not None}
        flat = pixels.ravel()[:: pixels.size // KEPT]
        found[case] = {"config": config, "shape": list(pixels.shape), "pixels": [round(float(value), 6) for value in flat]}
    header = {"transformers": transformers.__version__, "picture": ["processors", HEIGHT, WIDTH, 3], "cases": found}
    OUT.write_text(json.dumps(header) + "\n")
    print(OUT.stat().st_size)


if __name__ == "__main__":
    main()
