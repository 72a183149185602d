"""DINOv2's names: ours are timm's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jaxft.models.dinov2 import ARCHITECTURES
from jaxft.models.vit import Config
from jaxft.weights.names import vit
from jaxft.weights.names.names import Names, TransformersConfig
from jaxft.weights.names.vit import separate

Parts = Mapping[str, str | tuple[str, ...]]
#: The authors' names of a gated network.
_SWIGLU: Parts = {"blocks/{b}/mlp/fc1": "blocks.{b}.mlp.w12", "blocks/{b}/mlp/fc2": "blocks.{b}.mlp.w3"}
#: All their names.
_AUTHORS: Parts = {
    "reg_token": "register_tokens",
    "blocks/{b}/{part}": "blocks.{b}.{part}",
    **{name: name for name in ("cls_token", "pos_embed", "patch_embed", "norm")},
}


def _timm(config: Config) -> Names | None:
    """timm's names; the authors' files are read too. It has neither positions of the class token beside registers nor `_lc`."""
    if config.pool == "token+avg" or (config.registers and config.placed):
        return None
    return Names(also=_SWIGLU if config.activation == "swiglu" else (), ignored=("mask_token",))


def _transformers(config: Config) -> Names | None:
    """Hugging Face's names: of the classifier; of files from before its version 5; and both without the classifier's prefix.

    Where there are registers, the authors' files have this form.
    """
    if config.registers and not config.placed:
        return None
    base = "dinov2_with_registers" if config.registers else "dinov2"
    swiglu = config.activation == "swiglu"
    also = [_parts(f"{base}.", swiglu, former=True), _parts("", swiglu, former=False), _parts("", swiglu, former=True)]
    if config.registers:
        also.append({**_SWIGLU, **_AUTHORS} if swiglu else _AUTHORS)
    parts, masked = {**_parts(f"{base}.", swiglu, former=False), "head": "classifier"}, f"{base}.embeddings.mask_token"
    if config.pool == "token":  # a network without a classifier there
        return Names(parts, tuple(also), ignored=("mask_token", "embeddings.mask_token", masked))
    # A part of the classifier too, though only pretraining masks patches.
    constants = {masked: np.zeros((1, config.width), np.float32)}
    return Names(parts, tuple(also), ignored=("mask_token", "embeddings.mask_token"), constants=constants)


def _parts(base: str, swiglu: bool, former: bool) -> Parts:
    layer = base + "encoder.layer.{b}"
    if not swiglu:
        network: Parts = {"blocks/{b}/mlp": f"{layer}.mlp"}
    elif former:
        network = {"blocks/{b}/mlp/fc1": f"{layer}.mlp.weights_in", "blocks/{b}/mlp/fc2": f"{layer}.mlp.weights_out"}
    else:
        gate = (f"{layer}.mlp.gate_proj", f"{layer}.mlp.up_proj")
        network = {"blocks/{b}/mlp/fc1": gate, "blocks/{b}/mlp/fc2": f"{layer}.mlp.down_proj"}
    inner = f"{layer}.attention.attention" if former else f"{layer}.attention"
    return {
        "cls_token": f"{base}embeddings.cls_token",
        "reg_token": f"{base}embeddings.register_tokens",
        "pos_embed": f"{base}embeddings.position_embeddings",
        "patch_embed/proj": f"{base}embeddings.patch_embeddings.projection",
        "blocks/{b}/norm1": f"{layer}.norm1",
        "blocks/{b}/attn/qkv": separate(inner, ("query", "key", "value")) if former else separate(inner),
        "blocks/{b}/attn/proj": f"{layer}.attention.{'output.dense' if former else 'o_proj'}",
        "blocks/{b}/ls1/gamma": f"{layer}.layer_scale1.lambda1",
        "blocks/{b}/norm2": f"{layer}.norm2",
        **network,
        "blocks/{b}/ls2/gamma": f"{layer}.layer_scale2.lambda1",
        "norm": f"{base}layernorm",
    }


def transformers_config(config: Config) -> TransformersConfig:
    kind = "Dinov2WithRegisters" if config.registers else "Dinov2"
    fields = {**vit.fields(config), "use_swiglu_ffn": config.activation == "swiglu"}
    fields.pop("intermediate_size")  # four times the width by another name, and in a SwiGLU two thirds of that
    network = f"{kind}Model" if config.pool == "token" else f"{kind}ForImageClassification"
    return TransformersConfig("dinov2_with_registers" if config.registers else "dinov2", network, fields)


CONVENTIONS = {"timm": _timm, "transformers": _transformers}
ORIGINALS = {"timm": {name: name for name in ARCHITECTURES if name.endswith("dinov2")}}
