"""EfficientNet."""

import functools

from jaxft.models import mbconv
from jaxft.models.efficientnet import KERAS, TF, TV
from jaxft.models.mbconv import Row
from originals import CLASSES, Case

ROWS = (
    [Row("separable", 1, 3, 1, 1, 16, True)],
    [Row("inverted", 2, 3, 2, 6, 24, True)],
    [Row("inverted", 1, 5, 2, 6, 32, True)],
)


def _architecture(neck, **others):
    config = mbconv.Config(mbconv.scaled(ROWS, 8, "silu"), 8, neck, "silu", dropout=0.0, **others)
    return mbconv.architecture("efficientnet", config)


def _timm(lib):
    builder, models, nn = lib.timm.models._efficientnet_builder, lib.timm.models.efficientnet, lib.torch.nn
    stages = [["ds_r1_k3_s1_e1_c16_se0.25"], ["ir_r2_k3_s2_e6_c24_se0.25"], ["ir_r1_k5_s2_e6_c32_se0.25"]]
    options = {"pad_type": "same", "act_layer": nn.SiLU, "norm_layer": functools.partial(nn.BatchNorm2d, eps=1e-3)}
    return models.EfficientNet(builder.decode_arch_def(stages), CLASSES, 64, stem_size=8, **options)


def _torchvision(lib):
    models = lib.torchvision.models.efficientnet
    rows = [(1, 3, 1, 8, 16, 1), (6, 3, 2, 16, 24, 2), (6, 5, 2, 24, 32, 1)]
    norm = functools.partial(lib.torch.nn.BatchNorm2d, eps=1e-3, momentum=0.01)
    return models.EfficientNet([models.MBConvConfig(*row) for row in rows], 0.0, 0.0, CLASSES, norm)


def _transformers(lib):
    """Its momentum is TensorFlow's weight of the OLD value."""
    config = lib.transformers.EfficientNetConfig(
        num_labels=CLASSES,
        width_coefficient=0.25,
        depth_coefficient=1.0,
        kernel_sizes=[3, 3, 5],
        in_channels=[32, 64, 96],
        out_channels=[64, 96, 128],
        strides=[1, 2, 2],
        num_block_repeats=[1, 2, 1],
        expand_ratios=[1, 6, 6],
        hidden_dim=320,
        batch_norm_momentum=0.1,
        dropout_rate=0.0,
        drop_connect_rate=0.0,
    )
    return lib.transformers.EfficientNetForImageClassification(config)


def _keras(lib):
    names = ("repeats", "kernel_size", "strides", "expand_ratio", "filters_in", "filters_out")
    rows = [(1, 3, 1, 1, 32, 64), (2, 3, 2, 6, 64, 96), (1, 5, 2, 6, 96, 128)]
    blocks = [{**dict(zip(names, row, strict=True)), "se_ratio": 0.25, "id_skip": True} for row in rows]
    options = {"weights": None, "input_shape": (64, 64, 3), "classes": CLASSES, "classifier_activation": None}
    module = lib.applications.efficientnet
    return module.EfficientNet(0.25, 1.0, 64, 0.0, 0.0, blocks_args=blocks, **options)


CASES = (
    Case(
        "efficientnet_timm",
        _architecture(64, **TF),
        "timm",
        _timm,
        {"stem": "bn1", **{f"stage{i + 1}": f"blocks.{i}" for i in range(3)}, "neck": "bn2"},
    ),
    Case(
        "efficientnet_torchvision",
        _architecture(128, **TV),
        "torchvision",
        _torchvision,
        {"stem": "features.0", **{f"stage{i}": f"features.{i}" for i in (1, 2, 3)}, "neck": "features.4"},
    ),
    Case(
        "efficientnet_transformers",
        _architecture(320, **TF),
        "transformers",
        _transformers,
        {
            "stem": "efficientnet.embeddings",
            **{f"stage{i + 1}": f"efficientnet.encoder.blocks.{n}" for i, n in enumerate((0, 2, 3))},
            "neck": "efficientnet.encoder.top_activation",
        },
    ),
    # Its first layer divides by 255; the second, which has statistics, leaves images alone until they are loaded.
    Case(
        "efficientnet_keras",
        _architecture(320, **KERAS),
        "keras",
        _keras,
        {
            "stem": "stem_activation",
            "stage1": "block1a_project_bn",
            "stage2": "block2b_add",
            "stage3": "block3a_project_bn",
            "neck": "top_activation",
        },
        pixels=lambda images: images * 255,
    ),
)
