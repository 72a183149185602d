"""SigLIP's image towers."""

from originals import CLASSES
from originals.dinov2 import classified
from originals.vit import TIMM, TRANSFORMERS, case

BARE = {"class_token": False, "placed": 0}
TOWER = {
    "stem": "vision_model.embeddings",
    "stage1": "vision_model.encoder.layers.0",
    "stage3": "vision_model.encoder.layers.1",
    "neck": "vision_model.post_layernorm",
}


def _case(name, theirs, convention="timm", stages=None, **fields):
    return case(name, theirs, convention, stages, "siglip", **BARE, **fields)


def _vision(lib):
    return lib.transformers.SiglipVisionConfig(**TRANSFORMERS, patch_size=16, intermediate_size=136)


def _transformers(lib):
    return classified(lib, "vision_model", lib.transformers.SiglipVisionModel(_vision(lib)), 32, CLASSES, "head")


def _classification(lib):
    config = lib.transformers.SiglipConfig(vision_config=_vision(lib).to_dict(), num_labels=CLASSES)
    return lib.transformers.SiglipForImageClassification(config)


TANH = {"hidden": 136, "activation": "gelu_tanh"}
CASES = (
    _case("timm", lambda lib: lib.timm.create_model("vit_base_patch16_siglip_224", **TIMM), pool="map"),
    _case("transformers", _transformers, "transformers", TOWER, pool="map", **TANH),
    _case("mean", _classification, "transformers", TOWER, pool="avg", **TANH),
)
