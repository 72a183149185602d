"""CLIP's image towers."""

from originals import CLASSES
from originals.dinov2 import classified
from originals.vit import TIMM, TRANSFORMERS, case

CLIP = {"epsilon": 1e-5, "pre_norm": True}


def _case(name, theirs, convention="timm", stages=None, **fields):
    return case(name, theirs, convention, stages, "clip", **CLIP, **fields)


def _transformers(lib):
    config = lib.transformers.CLIPVisionConfig(**TRANSFORMERS, patch_size=16, intermediate_size=128, hidden_act="quick_gelu")
    return classified(lib, "vision_model", lib.transformers.CLIPVisionModel(config), 32, CLASSES, "head")


CASES = (
    _case(
        "timm",
        lambda lib: lib.timm.create_model("vit_base_patch16_clip_224", **TIMM),
        stages={"stem": "norm_pre", "stage1": "blocks.0", "stage3": "blocks.1", "neck": "norm"},
    ),
    _case(
        "transformers",
        _transformers,
        "transformers",
        {
            "stem": "vision_model.pre_layrnorm",
            "stage1": "vision_model.encoder.layers.0",
            "stage3": "vision_model.encoder.layers.1",
        },
        activation="quick_gelu",
    ),
)
