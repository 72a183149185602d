"""DINOv3's names: ours are timm's."""

from __future__ import annotations

from collections.abc import Mapping

from jaxft.models.dinov3 import ARCHITECTURES, Config
from jaxft.weights.names.names import Names, TransformersConfig

_QKV = ("q_proj", "k_proj", "v_proj")


def _timm(config: Config) -> Names:
    return Names()


def _transformers(config: Config) -> Names | None:
    """Hugging Face's names, and those of its files, which leave out `model.` before the blocks. It has no classifier: the head
    keeps its own name. All its files have the biases of queries and values."""
    if not config.bias:
        return None

    def parts(layer: str) -> Mapping[str, str | tuple[str, ...]]:
        attention = f"{layer}.attention"
        network = {"fc1": "up_proj", "fc1_g": "gate_proj", "fc1_x": "up_proj", "fc2": "down_proj"}
        return {
            "cls_token": "embeddings.cls_token",
            "reg_token": "embeddings.register_tokens",
            "patch_embed/proj": "embeddings.patch_embeddings",
            "blocks/{b}/norm1": f"{layer}.norm1",
            "blocks/{b}/attn/qkv/kernel": tuple(f"{attention}.{name}.weight" for name in _QKV),
            "blocks/{b}/attn/q_bias": f"{attention}.q_proj.bias",
            "blocks/{b}/attn/v_bias": f"{attention}.v_proj.bias",
            "blocks/{b}/attn/proj": f"{attention}.o_proj",
            "blocks/{b}/gamma_1": f"{layer}.layer_scale1.lambda1",
            "blocks/{b}/norm2": f"{layer}.norm2",
            **{f"blocks/{{b}}/mlp/{ours}": f"{layer}.mlp.{theirs}" for ours, theirs in network.items()},
            "blocks/{b}/gamma_2": f"{layer}.layer_scale2.lambda1",
        }

    return Names(parts("model.layer.{b}"), parts("layer.{b}"), ignored=("embeddings.mask_token",))


def transformers_config(config: Config) -> TransformersConfig | None:
    """It pools by the class token. In training it would stretch the patches' coordinates at random, by default."""
    if config.pool != "token":
        return None
    fields = {
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "intermediate_size": 4 * config.width,
        "patch_size": config.patch,
        "num_register_tokens": config.registers,
        "layer_norm_eps": config.epsilon,
        "use_gated_mlp": config.gated,
        "hidden_act": "silu" if config.gated else "gelu",
    }
    return TransformersConfig("dinov3_vit", "DINOv3ViTModel", fields, {"pos_embed_rescale": None})


CONVENTIONS = {"timm": _timm, "transformers": _transformers}
ORIGINALS = {"timm": {name: name for name in ARCHITECTURES if not name.endswith("_hf")}}
