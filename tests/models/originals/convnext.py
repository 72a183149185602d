"""ConvNeXt and ConvNeXt V2."""

from functools import partial

from jaxft.models import convnext
from originals import CLASSES, Case

TIMM = {"stem": "stem", **{f"stage{i}": f"stages.{i - 1}" for i in range(1, 5)}, "neck": "head.flatten"}
DEPTHS, WIDTHS = (1, 2, 1, 1), (8, 16, 24, 32)


def _timm(name, **options):
    return lambda lib: lib.timm.create_model(name, depths=DEPTHS, dims=WIDTHS, num_classes=CLASSES, **options)


def _torchvision(lib):
    module = lib.torchvision.models.convnext
    settings = [module.CNBlockConfig(*each) for each in zip(WIDTHS, (*WIDTHS[1:], None), DEPTHS, strict=True)]
    return module.ConvNeXt(settings, num_classes=CLASSES)


def _transformers(lib, version, depths=DEPTHS, widths=WIDTHS, classes=CLASSES):
    # By default its last LayerNorm alone has another epsilon than the network that its weights come from.
    options = {"depths": list(depths), "hidden_sizes": list(widths), "num_labels": classes, "layer_norm_eps": 1e-6}
    config = getattr(lib.transformers, f"{version}Config")(**options)
    return getattr(lib.transformers, f"{version}ForImageClassification")(config)


def _hugging(version):
    top = version.lower()
    stages = {f"stage{i}": f"{top}.encoder.stages.{i - 1}" for i in range(1, 5)}
    return {"stem": f"{top}.embeddings", **stages, "neck": f"{top}.layernorm"}


def _case(name, theirs, stages, convention="timm", **options):
    size = options.pop("size", 64)
    return Case(
        f"convnext_{name}",
        convnext.architecture(convnext.Config(DEPTHS, WIDTHS, **options)),
        convention,
        theirs,
        stages,
        size=size,
    )


def _keras(lib):
    options = {"weights": None, "input_shape": (72, 72, 3), "classes": CLASSES, "classifier_activation": None}
    module = lib.applications.convnext
    return module.ConvNeXt(list(DEPTHS), list(WIDTHS), name="tiny", include_preprocessing=False, **options)


KERAS = {
    "stem": "tiny_stem",
    **{f"stage{i + 1}": f"tiny_downsampling_block_{i}:input" for i in range(3)},
    "stage4": "tiny_head_gap:input",
    "neck": "tiny_head_layernorm",
}

CASES = (
    # 72 pixels: maps of 9 are halved to 4, and those of the last stage are smaller than a 7x7 kernel reaches.
    _case("timm", _timm("convnext_tiny"), TIMM, size=72),
    _case("overlap", _timm("convnext_nano_ols"), TIMM, conv_mlp=True, stem="overlap"),
    _case(
        "tiered_v2", _timm("convnextv2_atto", stem_type="overlap_tiered"), TIMM, v2=True, conv_mlp=True, stem="overlap_tiered"
    ),
    _case("torchvision", _torchvision, {f"stage{i}": f"features.{2 * i - 1}" for i in range(1, 5)}, "torchvision"),
    _case("transformers", partial(_transformers, version="ConvNext"), _hugging("ConvNext"), "transformers"),
    _case("transformers_v2", partial(_transformers, version="ConvNextV2"), _hugging("ConvNextV2"), "transformers", v2=True),
    _case("keras", _keras, KERAS, "keras", size=72),
)
