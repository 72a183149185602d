"""The Vision Transformer."""

import dataclasses

from jaxft.models import vit
from jaxft.preprocessing import Preprocessing
from originals import CLASSES, Case

#: Tiny: two blocks are stages 1 and 3.
CONFIG = vit.Config(32, 2, 2)
#: The same for timm and for transformers' configs.
TIMM = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 64, "num_classes": CLASSES}
TRANSFORMERS = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64, "num_labels": CLASSES,
}  # fmt: skip
STAGES = {"stage1": "blocks.0", "stage3": "blocks.1", "neck": "norm"}
HUGGING_FACE = {"stage1": "vit.layers.0", "stage3": "vit.layers.1", "neck": "vit.layernorm"}


def case(name, theirs, convention="timm", stages=None, family="vit", **fields):
    """A tiny network with `fields` of its config."""
    ours = vit.architecture(dataclasses.replace(CONFIG, **fields), Preprocessing(), family)
    return Case(f"{family}_{name}", ours, convention, theirs, stages or {"stem": "pos_drop", **STAGES})


def _torchvision(lib):
    return lib.torchvision.models.vision_transformer.VisionTransformer(64, 16, 2, 2, 32, 128, num_classes=CLASSES)


def _transformers(lib):
    config = lib.transformers.ViTConfig(**TRANSFORMERS, intermediate_size=128)
    return lib.transformers.ViTForImageClassification(config)


CASES = (
    case("patch8", lambda lib: lib.timm.create_model("vit_small_patch8_224", **TIMM), patch=8),
    case(
        "torchvision",
        _torchvision,
        "torchvision",
        {
            "stem": "encoder.dropout",
            "stage1": "encoder.layers.encoder_layer_0",
            "stage3": "encoder.layers.encoder_layer_1",
            "neck": "encoder.ln",
        },
    ),
    case("transformers", _transformers, "transformers", {"stem": "vit.embeddings", **HUGGING_FACE}, epsilon=1e-12),
)
