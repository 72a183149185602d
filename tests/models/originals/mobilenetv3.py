"""MobileNet-v3."""

import functools

from jaxft.models import mobilenetv2, mobilenetv3
from jaxft.models.efficientnet import TF, TV
from jaxft.models.mbconv import Row
from originals import CLASSES, Case

ROWS = (
    [Row("separable", 1, 3, 1, 1, 16, False, "relu")],
    [Row("inverted", 1, 3, 2, 3.67, 24, False, "relu"), Row("inverted", 1, 5, 1, 3, 24, True, "relu")],
    [Row("inverted", 1, 5, 2, 4, 32, True)],
    [Row("plain", 1, 1, 1, 1, 192)],
)


def _architecture(**others):
    return mobilenetv3.architecture(mobilenetv3.config(ROWS, 64, dropout=0.0, **others))


def _timm(lib):
    builder, models = lib.timm.models._efficientnet_builder, lib.timm.models.mobilenetv3
    stages = [
        ["ds_r1_k3_s1_e1_c16_nre"],
        ["ir_r1_k3_s2_e3.67_c24_nre", "ir_r1_k5_s1_e3_c24_se0.25_nre"],
        ["ir_r1_k5_s2_e4_c32_se0.25"],
        ["cn_r1_k1_s1_c192"],
    ]
    relu, norm = lib.torch.nn.ReLU, functools.partial(lib.torch.nn.BatchNorm2d, eps=1e-3)
    squeeze = functools.partial(
        models.SqueezeExcite, gate_layer="hard_sigmoid", force_act_layer=relu, rd_round_fn=builder.round_channels
    )
    options = {"num_features": 64, "pad_type": "same", "act_layer": lib.torch.nn.Hardswish, "norm_layer": norm}
    return models.MobileNetV3(builder.decode_arch_def(stages), CLASSES, se_layer=squeeze, **options)


def _torchvision(lib):
    models = lib.torchvision.models.mobilenetv3
    rows = [
        (16, 3, 16, 16, False, "RE", 1),
        (16, 3, 56, 24, False, "RE", 2),
        (24, 5, 72, 24, True, "RE", 1),
        (24, 5, 96, 32, True, "HS", 2),
    ]
    return models.MobileNetV3([models.InvertedResidualConfig(*row, 1, 1.0) for row in rows], 64, CLASSES, dropout=0.0)


def _keras(lib):
    module = lib.applications.mobilenet_v3

    def stages(x, kernel, activation, squeeze):
        block, relu = module._inverted_res_block, module.relu
        x = block(x, 1, 16, 3, 1, None, relu, 0)
        x = block(x, 3.67, 24, 3, 2, None, relu, 1)
        x = block(x, 3, 24, kernel, 1, squeeze, relu, 2)
        return block(x, 4, 32, kernel, 2, squeeze, activation, 3)

    options = {"weights": None, "classes": CLASSES, "classifier_activation": None, "include_preprocessing": False}
    return module.MobileNetV3(stages, 64, (64, 64, 3), dropout_rate=0.0, **options)


CASES = (
    Case(
        "mobilenetv3_timm",
        _architecture(**TF),
        "timm",
        _timm,
        {"stem": "bn1", **{f"stage{i + 1}": f"blocks.{i}" for i in range(4)}, "neck": "flatten"},
    ),
    Case(
        "mobilenetv3_torchvision",
        _architecture(**TV),
        "torchvision",
        _torchvision,
        {
            "stem": "features.0",
            **{f"stage{i + 1}": f"features.{n}" for i, n in enumerate((1, 3, 4, 5))},
            "neck": "classifier.1",
        },
    ),
    Case(
        "mobilenetv3_keras",
        _architecture(**mobilenetv2.KERAS),
        "keras",
        _keras,
        {
            "stem": "activation",
            "stage1": "expanded_conv_add",
            "stage2": "expanded_conv_2_add",
            "stage3": "expanded_conv_3_project_bn",
            "stage4": "global_average_pooling2d:input",
        },
    ),
)
