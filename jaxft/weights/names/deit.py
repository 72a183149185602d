"""DeiT's names: ours are timm's."""

from __future__ import annotations

from jaxft.models.deit import ARCHITECTURES
from jaxft.models.vit import Config
from jaxft.weights.names import vit
from jaxft.weights.names.names import Names, TransformersConfig
from jaxft.weights.names.vit import transformers


def _timm(config: Config) -> Names:
    """timm's names. The authors' files of DeiT III have the scales of the branches as leaves of the blocks."""
    return Names(also={"blocks/{b}/ls{number}/gamma": "blocks.{b}.gamma_{number}"})


def _transformers(config: Config) -> Names | None:
    """Without distillation it is Hugging Face's ViT. DeiT III is not there."""
    if config.layer_scale:
        return None
    if config.pool == "tokens":
        return transformers("deit", {"head": "cls_classifier", "head_dist": "distillation_classifier"})
    return transformers("deit" if config.dist_token else "vit", {"head": "classifier"})


def transformers_config(config: Config) -> TransformersConfig:
    if not config.dist_token:
        return vit.transformers_config(config)
    network = "DeiTForImageClassification" + ("WithTeacher" if config.pool == "tokens" else "")
    return TransformersConfig("deit", network, vit.fields(config))


CONVENTIONS = {"timm": _timm, "transformers": _transformers}
ORIGINALS = {"timm": {name: name for name in ARCHITECTURES if not name.endswith("_hf")}}
