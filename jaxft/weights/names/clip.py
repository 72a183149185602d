"""The names of CLIP's image towers: ours are timm's."""

from __future__ import annotations

from collections.abc import Mapping

from jaxft.models.clip import ARCHITECTURES
from jaxft.models.vit import Config
from jaxft.weights.names import vit
from jaxft.weights.names.names import Names, TransformersConfig
from jaxft.weights.names.vit import separate
from jaxft.weights.rules import Op

#: [D], and [N, D], of which the network has [1, 1, D] and [1, N, D].
ONE_TOKEN = Op("one token", lambda x: x[None, None], lambda x: x[0, 0])
TOKENS = Op("tokens", lambda x: x[None], lambda x: x[0])
#: What a file of the network for images and texts has besides.
OF_TEXTS = (
    "logit_scale",
    "text_projection.weight",
    "text_model.embeddings.position_ids",
    "text_model.embeddings.{part}.weight",
    "text_model.encoder.layers.{b}.{part}.{leaf}",
    "text_model.encoder.layers.{b}.{part}.{layer}.{leaf}",
    "text_model.final_layer_norm.{leaf}",
)


def _timm(config: Config) -> Names:
    return Names()


def tower(base: str) -> Mapping[str, str | tuple[str, ...]]:
    """Hugging Face's names of what CLIP's and SigLIP's towers share."""
    layer = base + "encoder.layers.{b}"
    return {
        "cls_token": f"{base}embeddings.class_embedding",
        "pos_embed": f"{base}embeddings.position_embedding.weight",
        "patch_embed/proj": f"{base}embeddings.patch_embedding",
        "norm_pre": f"{base}pre_layrnorm",
        "blocks/{b}/norm1": f"{layer}.layer_norm1",
        "blocks/{b}/attn/qkv": separate(f"{layer}.self_attn"),
        "blocks/{b}/attn/proj": f"{layer}.self_attn.out_proj",
        "blocks/{b}/norm2": f"{layer}.layer_norm2",
        "blocks/{b}/mlp": f"{layer}.mlp",
        "norm": f"{base}post_layernorm",
    }


def _transformers(config: Config) -> Names:
    """Hugging Face's names of the tower with its projection; files of the tower alone, or with its texts', are read too.

    The head keeps its own name: their classifier is another network (it takes the mean of patches that no LayerNorm has seen).
    """
    ignored = ("embeddings.position_ids", "vision_model.embeddings.position_ids", "visual_projection.weight", *OF_TEXTS)
    return Names(tower("vision_model."), tower(""), {"cls_token": ONE_TOKEN, "pos_embed": TOKENS}, ignored)


def transformers_config(config: Config) -> TransformersConfig:
    return TransformersConfig("clip_vision_model", "CLIPVisionModel", vit.fields(config))


CONVENTIONS = {"timm": _timm, "transformers": _transformers}
ORIGINALS = {"timm": {name: name for name in ARCHITECTURES}}
