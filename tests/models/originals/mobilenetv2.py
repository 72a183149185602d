"""MobileNet-v2."""

from jaxft.models import mbconv, mobilenetv2
from jaxft.models.efficientnet import TF
from jaxft.models.mbconv import Row
from originals import CLASSES, Case

ROWS = ([Row("separable", 1, 3, 1, 1, 8)], [Row("inverted", 2, 3, 2, 6, 16)], [Row("inverted", 1, 3, 2, 6, 24)])


def _config(rows, stem, neck, **others):
    return mbconv.Config(mbconv.scaled(rows, stem, "relu6"), stem, neck, "relu6", dropout=0.0, **others)


def _timm(lib):
    builder, models = lib.timm.models._efficientnet_builder, lib.timm.models.efficientnet
    blocks = builder.decode_arch_def([["ds_r1_k3_s1_c8"], ["ir_r2_k3_s2_e6_c16"], ["ir_r1_k3_s2_e6_c24"]])
    return models.EfficientNet(blocks, CLASSES, 64, stem_size=16, act_layer=lib.torch.nn.ReLU6)


def _torchvision(lib):
    setting = [[1, 8, 1, 1], [6, 16, 2, 2], [6, 24, 1, 2]]
    return lib.torchvision.models.MobileNetV2(CLASSES, 0.5, setting, dropout=0.0)


def _transformers_config(lib, width, classes=1000):
    options = {"num_labels": classes, "classifier_dropout_prob": 0.0}
    return lib.transformers.MobileNetV2Config(depth_multiplier=width, **options)


def _transformers(lib):
    """Three of its sixteen blocks after the stem. Its momentum is TensorFlow's weight of the OLD value."""
    network = lib.transformers.MobileNetV2ForImageClassification(_transformers_config(lib, 0.35, CLASSES))
    inner, nn = network.mobilenet_v2, lib.torch.nn
    inner.layer = inner.layer[:3]
    inner.conv_1x1.convolution = nn.Conv2d(16, 1280, 1, bias=False)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    return network


def _keras(lib):
    options = {"weights": None, "input_shape": (72, 72, 3), "classes": CLASSES, "classifier_activation": None}
    return lib.keras.applications.MobileNetV2(alpha=0.35, **options)


CASES = (
    Case(
        "mobilenetv2_timm",
        mobilenetv2.architecture(_config(ROWS, 16, 64)),
        "timm",
        _timm,
        {"stem": "bn1", **{f"stage{i + 1}": f"blocks.{i}" for i in range(3)}, "neck": "bn2"},
    ),
    Case(
        "mobilenetv2_torchvision",
        mobilenetv2.architecture(
            _config([[row._replace(channels=row.channels // 2) for row in rows] for rows in ROWS], 16, 1280)
        ),
        "torchvision",
        _torchvision,
        {"stem": "features.0", **{f"stage{i + 1}": f"features.{n}" for i, n in enumerate((1, 3, 4))}, "neck": "features.5"},
    ),
    Case(
        "mobilenetv2_transformers",
        mobilenetv2.architecture(
            _config([ROWS[0], [Row("inverted", 2, 3, 2, 6, 8)], [Row("inverted", 1, 3, 2, 6, 16)]], 16, 1280, **TF)
        ),
        "transformers",
        _transformers,
        {
            "stem": "mobilenet_v2.conv_stem.first_conv",
            "stage1": "mobilenet_v2.conv_stem",
            "stage2": "mobilenet_v2.layer.1",
            "stage3": "mobilenet_v2.layer.2",
            "neck": "mobilenet_v2.conv_1x1",
        },
    ),
    # 72 pixels make odd maps, which are padded on both sides.
    Case(
        "mobilenetv2_keras",
        mobilenetv2.architecture(mobilenetv2.config(0.35, dropout=0.0, **mobilenetv2.KERAS)),
        "keras",
        _keras,
        {
            "stem": "Conv1_relu",
            "stage1": "expanded_conv_project_BN",
            **{f"stage{i}": f"block_{n}_add" for i, n in zip(range(2, 7), (2, 5, 9, 12, 15), strict=True)},
            "stage7": "block_16_project_BN",
            "neck": "out_relu",
        },
        size=72,
    ),
)
