"""The names of SigLIP's image towers: ours are timm's but for the pooling's query, key and value."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jaxft.models.siglip import ARCHITECTURES
from jaxft.models.vit import Config
from jaxft.weights.names import vit
from jaxft.weights.names.clip import OF_TEXTS, TOKENS, tower
from jaxft.weights.names.names import Names, TransformersConfig
from jaxft.weights.rules import DENSE, IDENTITY, Op


def _query_first(op: Op, width: int) -> Op:
    """Two tensors, the query's and those of key and value, become one along the last axis."""

    def forward(*tensors: np.ndarray) -> np.ndarray:
        return np.concatenate([op.forward(tensor) for tensor in tensors], -1)

    def inverse(x: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(np.asarray(op.inverse(part)) for part in np.split(x, [width], -1))

    return Op(f"query_first({op.name}, {width})", forward, inverse)


def _timm(config: Config) -> Names:
    ops = {f"attn_pool/qkv/{leaf}": _query_first(op, config.width) for leaf, op in (("kernel", DENSE), ("bias", IDENTITY))}
    return Names({"attn_pool/qkv": ("attn_pool.q", "attn_pool.kv")}, ops=ops)


def _transformers(config: Config) -> Names:
    """Hugging Face's names of the tower, and of its classifier, which takes the mean of the patches and has the pooling's
    weights without using them. Where the pooling is used, the head keeps its own name: theirs would be of another network.

    Files of the tower, alone or with its texts', are read too.
    """
    layers = ("attention.out_proj", "layernorm", "mlp.fc1", "mlp.fc2")
    pooling = ["probe", "attention.in_proj_weight", "attention.in_proj_bias"]
    pooling += [f"{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")]
    ignored = ["logit_bias", "text_model.head.{leaf}", *OF_TEXTS]
    for base in ("", "vision_model."):
        unused = pooling if config.pool != "map" else []
        ignored += [f"{base}embeddings.position_ids", *(f"{base}head.{name}" for name in unused)]
    heads = {} if config.pool == "map" else {"head": "classifier"}
    return Names({**_tower("vision_model."), **heads}, _tower(""), {"pos_embed": TOKENS}, tuple(ignored))


def _tower(base: str) -> Mapping[str, str | tuple[str, ...]]:
    pool = f"{base}head"
    return {
        **tower(base),
        "attn_pool/latent": f"{pool}.probe",
        "attn_pool/qkv/kernel": f"{pool}.attention.in_proj_weight",
        "attn_pool/qkv/bias": f"{pool}.attention.in_proj_bias",
        "attn_pool/proj": f"{pool}.attention.out_proj",
        "attn_pool/norm": f"{pool}.layernorm",
        "attn_pool/mlp": f"{pool}.mlp",
    }


def transformers_config(config: Config) -> TransformersConfig | None:
    """Of the tower: the config of their classifier, which takes the mean of the patches, has the tower's inside it."""
    return TransformersConfig("siglip_vision_model", "SiglipVisionModel", vit.fields(config)) if config.pool == "map" else None


CONVENTIONS = {"timm": _timm, "transformers": _transformers}
ORIGINALS = {"timm": {name: name for name in ARCHITECTURES if not name.endswith("_hf")}}
