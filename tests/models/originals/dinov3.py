"""DINOv3."""

from jaxft.models import dinov3
from originals import CLASSES, Case
from originals.vit import STAGES, TIMM, TRANSFORMERS


def _case(name, theirs, convention="timm", stages=None, **fields):
    config = dinov3.Config(32, 2, 2, **fields)
    stages = stages or {"stem": "pos_drop", **STAGES}
    return Case(f"dinov3_{name}", dinov3.architecture(config), convention, theirs, stages)


def _timm(name):
    return lambda lib: lib.timm.create_model(name, **TIMM)


def _classified(lib, classes, **fields):
    """transformers' network and a dense layer on what it pools."""
    # In training it would stretch the patches' coordinates at random.
    config = lib.transformers.DINOv3ViTConfig(num_register_tokens=4, pos_embed_rescale=None, **fields)

    class Classified(lib.transformers.DINOv3ViTModel):
        def __init__(self):
            super().__init__(config)
            self.head = lib.torch.nn.Linear(config.hidden_size, classes)

        def forward(self, image):
            return self.head(super().forward(image).pooler_output)

    return Classified()


def _transformers(lib):
    fields = {**TRANSFORMERS, "intermediate_size": 128, "hidden_act": "silu", "use_gated_mlp": True}
    return _classified(lib, CLASSES, **fields)


CASES = (
    _case("small", _timm("vit_small_patch16_dinov3")),
    _case("plus", _timm("vit_small_plus_patch16_dinov3_qkvb"), gated=True, bias=True),
    _case(
        "transformers",
        _transformers,
        "transformers",
        {"stem": "embeddings", "stage1": "model.layer.0", "stage3": "model.layer.1", "neck": "norm"},
        gated=True,
        bias=True,
        pool="token",
    ),
)
