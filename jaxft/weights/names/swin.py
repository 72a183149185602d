"""Swin Transformer's names: ours are timm's."""

from __future__ import annotations

import numpy as np

from jaxft.models.swin import ARCHITECTURES, Config
from jaxft.models.windows import offsets
from jaxft.weights.names.names import Names, TransformersConfig

_BLOCK = "layers/{s}/blocks/{b}"
_BIAS = "relative_position_bias_table"


def _timm(config: Config) -> Names:
    """timm's names. Its older files hold what follows from the size of a window."""
    block = "layers.{s}.blocks.{b}"
    return Names(ignored=(f"{block}.attn.relative_position_index", f"{block}.attn_mask"))


def _torchvision(config: Config) -> Names:
    """torchvision's names: stages and what stands between them are numbered through. Its state dicts hold indices too."""
    parts = {"patch_embed/proj": "features.0.0", "patch_embed/norm": "features.0.2", "norm": "norm", "head/fc": "head"}
    for stage in range(4):
        ours, theirs = f"layers/{stage}", f"features.{2 * stage + 1}.{{b}}"
        parts |= {
            f"{ours}/downsample": f"features.{2 * stage}",
            f"{ours}/blocks/{{b}}/mlp/fc1": f"{theirs}.mlp.0",
            f"{ours}/blocks/{{b}}/mlp/fc2": f"{theirs}.mlp.3",
            f"{ours}/blocks/{{b}}/{{layer}}": f"{theirs}.{{layer}}",
        }
    indices = {}
    for stage, depth in enumerate(config.depths):
        index = offsets(config.windows[stage]).ravel().astype(np.int64)
        for block in range(depth):
            indices[f"features.{2 * stage + 1}.{block}.attn.relative_position_index"] = index
    return Names(parts, constants=indices)


def _transformers(config: Config) -> Names:
    """Hugging Face's names; it halves a map at the end of a stage. Those of its modules since transformers 5 are written; the
    former ones, which files have, are read too."""
    block, kinds = "swin.encoder.layers.{s}.blocks.{b}", ("query", "key", "value")
    parts: dict[str, str | tuple[str, ...]] = {
        "patch_embed/proj": "swin.embeddings.patch_embeddings.projection",
        "patch_embed/norm": "swin.embeddings.norm",
        **{f"layers/{stage}/downsample": f"swin.encoder.layers.{stage - 1}.downsample" for stage in range(1, 4)},
        f"{_BLOCK}/norm1": f"{block}.layernorm_before",
        f"{_BLOCK}/attn/qkv": tuple(f"{block}.attention.{kind[0]}_proj" for kind in kinds),
        f"{_BLOCK}/attn/proj": f"{block}.attention.o_proj",
        f"{_BLOCK}/attn/{_BIAS}": f"{block}.attention.relative_position_bias.{_BIAS}",
        f"{_BLOCK}/norm2": f"{block}.layernorm_after",
        f"{_BLOCK}/mlp": f"{block}.mlp",
        "norm": "swin.layernorm",
        "head/fc": "classifier",
    }
    also: dict[str, str | tuple[str, ...]] = {
        f"{_BLOCK}/attn/qkv": tuple(f"{block}.attention.self.{kind}" for kind in kinds),
        f"{_BLOCK}/attn/proj": f"{block}.attention.output.dense",
        f"{_BLOCK}/attn/{_BIAS}": f"{block}.attention.self.{_BIAS}",
        f"{_BLOCK}/mlp/fc1": f"{block}.intermediate.dense",
        f"{_BLOCK}/mlp/fc2": f"{block}.output.dense",
    }
    return Names(parts, also, ignored=(f"{block}.attention.self.relative_position_index",))


def transformers_config(config: Config) -> TransformersConfig:
    """Those of both versions."""
    kind = "Swinv2" if config.v2 else "Swin"
    fields = {"embed_dim": config.width, "depths": list(config.depths), "num_heads": list(config.heads)}
    fields["window_size"] = config.windows[0]
    return TransformersConfig(kind.lower(), f"{kind}ForImageClassification", fields)


CONVENTIONS = {"timm": _timm, "torchvision": _torchvision, "transformers": _transformers}
_SHORT = {"tiny": "t", "small": "s", "base": "b"}
ORIGINALS = {
    "timm": {name: name for name in ARCHITECTURES if name.startswith("swin_")},
    "torchvision": {f"swin_{size}_patch4_window7_224": f"swin_{short}" for size, short in _SHORT.items()},
}
