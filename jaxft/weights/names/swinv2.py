"""Swin Transformer V2's names: ours are timm's, but that we keep the biases of queries and values in one vector."""

from __future__ import annotations

import numpy as np

from jaxft.models.swin import ARCHITECTURES, Config
from jaxft.weights.names import swin
from jaxft.weights.names.names import Names
from jaxft.weights.rules import Op

_BLOCK = "layers/{s}/blocks/{b}"


def _without_keys(x: np.ndarray) -> np.ndarray:
    q, _, v = x.reshape(3, -1)
    return np.concatenate([q, v])


def _with_keys(x: np.ndarray) -> np.ndarray:
    q, v = x.reshape(2, -1)
    return np.concatenate([q, np.zeros_like(q), v])


#: The biases of queries, keys and values, of which torchvision sets the second to zero before it adds them.
_KEYS_WITHOUT = Op("keys_without_bias", _without_keys, _with_keys)


def _timm(config: Config) -> Names:
    """timm's names. Its older files hold what follows from the size of a window."""
    block = "layers.{s}.blocks.{b}"
    buffers = ("attn.relative_position_index", "attn.relative_coords_table", "attn.k_bias", "attn_mask")
    return Names(
        {f"{_BLOCK}/attn/qv_bias": (f"{block}.attn.q_bias", f"{block}.attn.v_bias")},
        ignored=tuple(f"{block}.{buffer}" for buffer in buffers),
    )


def _torchvision(config: Config) -> Names:
    """torchvision's names: stages and what stands between them are numbered through.

    Its state dicts hold indices and coordinates too, which follow from the size of a window. They are not written:
    `load_state_dict` needs `strict=False`.
    """
    parts = {"patch_embed/proj": "features.0.0", "patch_embed/norm": "features.0.2", "norm": "norm", "head/fc": "head"}
    for stage in range(4):
        ours, theirs = f"layers/{stage}", f"features.{2 * stage + 1}.{{b}}"
        parts |= {
            f"{ours}/downsample": f"features.{2 * stage}",
            f"{ours}/blocks/{{b}}/attn/qv_bias": f"{theirs}.attn.qkv.bias",
            f"{ours}/blocks/{{b}}/mlp/fc1": f"{theirs}.mlp.0",
            f"{ours}/blocks/{{b}}/mlp/fc2": f"{theirs}.mlp.3",
            f"{ours}/blocks/{{b}}/{{layer}}": f"{theirs}.{{layer}}",
        }
    buffers = ("relative_position_index", "relative_coords_table")
    ignored = tuple(f"features.{{s}}.{{b}}.attn.{buffer}" for buffer in buffers)
    return Names(parts, ops={f"{_BLOCK}/attn/qv_bias": _KEYS_WITHOUT}, ignored=ignored)


def _transformers(config: Config) -> Names:
    """Hugging Face's names; it halves a map at the end of a stage."""
    block = "swinv2.encoder.layers.{s}.blocks.{b}"
    attention = f"{block}.attention.self"
    parts: dict[str, str | tuple[str, ...]] = {
        "patch_embed/proj": "swinv2.embeddings.patch_embeddings.projection",
        "patch_embed/norm": "swinv2.embeddings.norm",
        **{f"layers/{stage}/downsample": f"swinv2.encoder.layers.{stage - 1}.downsample" for stage in range(1, 4)},
        f"{_BLOCK}/attn/qkv/kernel": tuple(f"{attention}.{kind}.weight" for kind in ("query", "key", "value")),
        f"{_BLOCK}/attn/qv_bias": tuple(f"{attention}.{kind}.bias" for kind in ("query", "value")),
        f"{_BLOCK}/attn/proj": f"{block}.attention.output.dense",
        f"{_BLOCK}/attn/cpb_mlp": f"{attention}.continuous_position_bias_mlp",
        f"{_BLOCK}/attn/logit_scale": f"{attention}.logit_scale",
        f"{_BLOCK}/norm1": f"{block}.layernorm_before",
        f"{_BLOCK}/norm2": f"{block}.layernorm_after",
        f"{_BLOCK}/mlp/fc1": f"{block}.intermediate.dense",
        f"{_BLOCK}/mlp/fc2": f"{block}.output.dense",
        "norm": "swinv2.layernorm",
        "head/fc": "classifier",
    }
    buffers = ("relative_position_index", "relative_coords_table")
    return Names(parts, ignored=tuple(f"{attention}.{buffer}" for buffer in buffers))


transformers_config = swin.transformers_config
CONVENTIONS = {"timm": _timm, "torchvision": _torchvision, "transformers": _transformers}
#: torchvision has it too, with biases of keys that it never adds: its state dict is not equal to ours, see the tests.
ORIGINALS = {"timm": {name: name for name in ARCHITECTURES if name.startswith("swinv2_")}}
