"""Writes tests/tuning/fixtures/layer_decay.json: timm's learning rate scale and weight decay of every parameter.

Needs torch and timm, in an environment of its own:  python scripts/make_layer_decay_fixtures.py
"""

import json
from pathlib import Path

import timm
from timm.optim import param_groups_layer_decay

LAYER_DECAY, WEIGHT_DECAY = 0.75, 0.05
NAMES = (
    "resnet18",
    "resnet50",
    "resnetv2_50x1_bit",
    "densenet121",
    "regnetx_002",
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "efficientnet_lite0",
    "convnext_atto",
    "vit_tiny_patch16_224",
    "vit_base_patch32_clip_224",
    "vit_base_patch16_siglip_224",
    "deit_tiny_distilled_patch16_224",
    "swin_tiny_patch4_window7_224",
    "mixer_s32_224",
)


def table(name):
    """[lr scale, whether it decays, the parameters' names] of each group, the network's order."""
    model = timm.create_model(name, pretrained=False, num_classes=10)
    skipped = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    names = {id(parameter): path for path, parameter in model.named_parameters()}
    groups = param_groups_layer_decay(model, weight_decay=WEIGHT_DECAY, no_weight_decay_list=skipped, layer_decay=LAYER_DECAY)
    return [
        [group["lr_scale"], group["weight_decay"] > 0, sorted(names[id(parameter)] for parameter in group["params"])]
        for group in groups
    ]


def main() -> None:
    file = Path(__file__).parent.parent / "tests" / "tuning" / "fixtures" / "layer_decay.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    found = {"layer_decay": LAYER_DECAY, "timm": timm.__version__, "networks": {name: table(name) for name in NAMES}}
    file.write_text(json.dumps(found, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
