"""DINOv2."""

from originals import CLASSES
from originals.vit import TIMM, TRANSFORMERS, case

SCALED = {"patch": 16, "layer_scale": 1e-5}
SWIGLU = {"hidden": 176, "activation": "swiglu"}  # 2/3 of 4 * 32, to a multiple of 8, twice


def _case(name, theirs, convention="timm", stages=None, **fields):
    return case(name, theirs, convention, stages, "dinov2", **SCALED, **fields)


def _timm(name, **options):
    return lambda lib: lib.timm.create_model(name, **TIMM, patch_size=16, **options)


def classified(lib, base, network, width, classes, head="classifier"):
    """A torch network of `network`, called `base`, and a dense layer on what it pools, called `head`: transformers has none."""
    torch = lib.torch

    class Classified(torch.nn.Module):
        def __init__(self):
            super().__init__()
            setattr(self, base, network)
            setattr(self, head, torch.nn.Linear(width, classes))

        def forward(self, image):
            return getattr(self, head)(getattr(self, base)(image).pooler_output)

    return Classified()


def _transformers(network, base, swiglu=False):
    """A classifier of transformers, or its backbone with one."""

    def make(lib):
        config = getattr(lib.transformers, "Dinov2WithRegistersConfig" if "Registers" in network else "Dinov2Config")
        made = getattr(lib.transformers, network)(config(**TRANSFORMERS, patch_size=16, use_swiglu_ffn=swiglu))
        return made if network.endswith("Classification") else classified(lib, base, made, 32, CLASSES)

    return make


def _stages(base):
    return {
        "stem": f"{base}.embeddings",
        "stage1": f"{base}.encoder.layer.0",
        "stage3": f"{base}.encoder.layer.1",
        "neck": f"{base}.layernorm",
    }


REGISTERS = "dinov2_with_registers"
CASES = (
    _case("swiglu", _timm("vit_giant_patch14_dinov2", mlp_ratio=5.5), **SWIGLU),
    _case("reg4", _timm("vit_small_patch14_reg4_dinov2"), registers=4, placed=0),
    _case("transformers", _transformers("Dinov2Model", "dinov2", True), "transformers", _stages("dinov2"), **SWIGLU),
    _case("lc", _transformers("Dinov2ForImageClassification", "dinov2"), "transformers", _stages("dinov2"), pool="token+avg"),
    _case(
        "registers",
        _transformers("Dinov2WithRegistersForImageClassification", REGISTERS),
        "transformers",
        _stages(REGISTERS),
        registers=4,
        pool="token+avg",
    ),
)
