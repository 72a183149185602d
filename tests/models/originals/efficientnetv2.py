"""EfficientNet-v2."""

import functools

from jaxft.models import efficientnetv2, mbconv
from jaxft.models.efficientnet import TF
from jaxft.models.mbconv import Row
from originals import CLASSES, Case

PLAIN = (Row("plain", 1, 3, 1, 1, 8), Row("fused", 2, 3, 2, 4, 16), Row("inverted", 2, 3, 2, 4, 24, True))
RW = (Row("fused", 1, 3, 1, 1, 8), *PLAIN[1:])


def _case(name, rows, convention, theirs, stages, **others):
    config = efficientnetv2.config(rows, 8, neck=64, dropout=0.0, **others)
    return Case(f"efficientnetv2_{name}", mbconv.architecture("efficientnetv2", config), convention, theirs, stages)


def _timm(first, **options):
    def make(lib):
        builder, models, nn = lib.timm.models._efficientnet_builder, lib.timm.models.efficientnet, lib.torch.nn
        blocks = builder.decode_arch_def([[first], ["er_r2_k3_s2_e4_c16"], ["ir_r2_k3_s2_e4_c24_se0.25"]])
        norm = functools.partial(nn.BatchNorm2d, eps=1e-3 if options else 1e-5)
        return models.EfficientNet(blocks, CLASSES, 64, stem_size=8, act_layer=nn.SiLU, norm_layer=norm, **options)

    return make


def _torchvision(lib):
    models = lib.torchvision.models.efficientnet
    rows = [
        models.FusedMBConvConfig(1, 3, 1, 8, 8, 1),
        models.FusedMBConvConfig(4, 3, 2, 8, 16, 2),
        models.MBConvConfig(4, 3, 2, 16, 24, 2),
    ]
    return models.EfficientNet(rows, 0.0, 0.0, CLASSES, functools.partial(lib.torch.nn.BatchNorm2d, eps=1e-3), 64)


def _keras(lib):
    names = ("conv_type", "num_repeat", "kernel_size", "strides", "expand_ratio", "input_filters", "output_filters", "se_ratio")
    rows = [(1, 1, 3, 1, 1, 8, 8, 0), (1, 2, 3, 2, 4, 8, 16, 0), (0, 2, 3, 2, 4, 16, 24, 0.25)]
    blocks = [dict(zip(names, row, strict=True)) for row in rows]
    options = {"weights": None, "input_shape": (64, 64, 3), "classes": CLASSES, "classifier_activation": None}
    module = lib.applications.efficientnet_v2
    return module.EfficientNetV2(1.0, 1.0, 64, 0.0, 0.0, blocks_args=blocks, include_preprocessing=False, **options)


TIMM = {"stem": "bn1", **{f"stage{i + 1}": f"blocks.{i}" for i in range(3)}, "neck": "bn2"}
TORCHVISION = {"stem": "features.0", **{f"stage{i}": f"features.{i}" for i in (1, 2, 3)}, "neck": "features.4"}

CASES = (
    _case("timm", PLAIN, "timm", _timm("cn_r1_k3_s1_e1_c8_skip", pad_type="same"), TIMM, **TF),
    _case("timm_rw", RW, "timm", _timm("er_r1_k3_s1_e1_c8"), TIMM),
    _case("torchvision", PLAIN, "torchvision", _torchvision, TORCHVISION, epsilon=1e-3),
    Case(
        "efficientnetv2_keras",
        mbconv.architecture("efficientnetv2", efficientnetv2.config(PLAIN, 8, dropout=0.0, **efficientnetv2.KERAS)),
        "keras",
        _keras,
        {
            "stem": "stem_activation",
            "stage1": "block1a_add",
            "stage2": "block2b_add",
            "stage3": "block3b_add",
            "neck": "top_activation",
        },
    ),
)
