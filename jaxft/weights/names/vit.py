"""The Vision Transformer's names: ours are timm's."""

from __future__ import annotations

from jaxft.models.vit import ARCHITECTURES, Config
from jaxft.weights.names.names import Names


def _timm(config: Config) -> Names:
    return Names()


def _torchvision(config: Config) -> Names:
    """torchvision's names. Its files have former names of two layers, `mlp.linear_1` and `mlp.linear_2`, which it renames."""
    layer = "encoder.layers.encoder_layer_{b}"
    parts = {
        "cls_token": "class_token",
        "pos_embed": "encoder.pos_embedding",
        "patch_embed/proj": "conv_proj",
        "blocks/{b}/norm1": f"{layer}.ln_1",
        "blocks/{b}/attn/qkv/kernel": f"{layer}.self_attention.in_proj_weight",
        "blocks/{b}/attn/qkv/bias": f"{layer}.self_attention.in_proj_bias",
        "blocks/{b}/attn/proj": f"{layer}.self_attention.out_proj",
        "blocks/{b}/norm2": f"{layer}.ln_2",
        "blocks/{b}/mlp/fc1": f"{layer}.mlp.0",
        "blocks/{b}/mlp/fc2": f"{layer}.mlp.3",
        "norm": "encoder.ln",
        "head": "heads.head",
    }
    also = {"blocks/{b}/mlp/fc1": f"{layer}.mlp.linear_1", "blocks/{b}/mlp/fc2": f"{layer}.mlp.linear_2"}
    return Names(parts, also)


CONVENTIONS = {"timm": _timm, "torchvision": _torchvision}
ORIGINALS = {
    "timm": {name: name for name in ARCHITECTURES},
    "torchvision": {"vit_base_patch16_224": "vit_b_16"},
}
