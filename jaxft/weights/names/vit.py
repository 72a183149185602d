"""The Vision Transformer's names: ours are timm's."""

from __future__ import annotations

from typing import Any

from jaxft.models.vit import ARCHITECTURES, Config
from jaxft.weights.names.names import Names, TransformersConfig


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


def separate(attention: str, names: tuple[str, str, str] = ("q_proj", "k_proj", "v_proj")) -> tuple[str, ...]:
    """Query, key and value as three layers of the module `attention`."""
    return tuple(f"{attention}.{name}" for name in names)


def transformers(base: str, heads: dict[str, str]) -> Names:
    """The names of Hugging Face's ViT and its like, whose base network is the attribute `base` of the classifier.

    Files have names of before its version 5, which it renames; those of the base network alone have them without `base`.
    """

    def parts(base: str) -> dict[str, str | tuple[str, ...]]:
        layer = base + "layers.{b}"
        return {
            **_embeddings(base),
            "blocks/{b}/norm1": f"{layer}.layernorm_before",
            "blocks/{b}/attn/qkv": separate(f"{layer}.attention"),
            "blocks/{b}/attn/proj": f"{layer}.attention.o_proj",
            "blocks/{b}/norm2": f"{layer}.layernorm_after",
            "blocks/{b}/mlp": f"{layer}.mlp",
        }

    def former(base: str) -> dict[str, str | tuple[str, ...]]:
        layer = base + "encoder.layer.{b}"
        return {
            **_embeddings(base),
            "blocks/{b}/norm1": f"{layer}.layernorm_before",
            "blocks/{b}/attn/qkv": separate(f"{layer}.attention.attention", ("query", "key", "value")),
            "blocks/{b}/attn/proj": f"{layer}.attention.output.dense",
            "blocks/{b}/norm2": f"{layer}.layernorm_after",
            "blocks/{b}/mlp/fc1": f"{layer}.intermediate.dense",
            "blocks/{b}/mlp/fc2": f"{layer}.output.dense",
        }

    pooler = [f"{prefix}pooler.dense.{leaf}" for prefix in ("", f"{base}.") for leaf in ("weight", "bias")]
    return Names({**parts(f"{base}."), **heads}, (former(f"{base}."), parts(""), former("")), ignored=tuple(pooler))


def _embeddings(base: str) -> dict[str, str | tuple[str, ...]]:
    return {
        "cls_token": f"{base}embeddings.cls_token",
        "dist_token": f"{base}embeddings.distillation_token",
        "pos_embed": f"{base}embeddings.position_embeddings",
        "patch_embed/proj": f"{base}embeddings.patch_embeddings.projection",
        "norm": f"{base}layernorm",
    }


#: What transformers calls an activation.
_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "quick_gelu": "quick_gelu", "swiglu": "gelu"}


def fields(config: Config) -> dict[str, Any]:
    """Of the configs of all that is a Vision Transformer there."""
    return {
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "intermediate_size": config.hidden or 4 * config.width,
        "patch_size": config.patch,
        "layer_norm_eps": config.epsilon,
        "hidden_act": _ACTIVATIONS[config.activation],
    }


def transformers_config(config: Config) -> TransformersConfig:
    return TransformersConfig("vit", "ViTForImageClassification", fields(config))


def _transformers(config: Config) -> Names:
    return transformers("vit", {"head": "classifier"})


CONVENTIONS = {"timm": _timm, "torchvision": _torchvision, "transformers": _transformers}
_TORCHVISION = {"b": "base", "l": "large", "h": "huge"}
ORIGINALS = {
    "timm": {name: name for name in ARCHITECTURES if not name.endswith("_hf")},
    "torchvision": {
        f"vit_{_TORCHVISION[size]}_patch{patch}_224": f"vit_{size}_{patch}"
        for size, patch in (("b", 16), ("b", 32), ("l", 16), ("l", 32), ("h", 14))
    },
}
