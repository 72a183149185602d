"""ResNet v2: BiT, and Keras' with BatchNorm."""

from jaxft.models import architecture_of, resnetv2
from originals import CLASSES, Case

CONFIG = resnetv2.Config((1, 2, 1, 1), (128, 256, 384, 512))
ARCHITECTURE = resnetv2.architecture(CONFIG, architecture_of("resnetv2_50x1_bit").preprocessing)


def _timm(lib):
    options = {"layers": CONFIG.depths, "channels": CONFIG.widths, "stem_chs": CONFIG.widths[0] // 4}
    return lib.timm.models.resnetv2._create_resnetv2_bit("resnetv2_50x1_bit", num_classes=CLASSES, **options)


def _transformers(lib, config, classes):
    theirs = lib.transformers.BitConfig(
        depths=list(config.depths),
        hidden_sizes=list(config.widths),
        embedding_size=config.widths[0] // 4,
        num_labels=classes,
    )
    return lib.transformers.BitForImageClassification(theirs)


def _keras(lib):
    module = lib.applications.resnet

    def stages(x):
        for number, (depth, width) in enumerate(zip(KERAS.depths, KERAS.widths, strict=True), start=2):
            stride = 1 if number == 5 else 2
            x = module.stack_residual_blocks_v2(x, width // 4, depth, stride1=stride, name=f"conv{number}")
        return x

    options = {"weights": None, "input_shape": (72, 72, 3), "classes": CLASSES, "classifier_activation": None}
    return module.ResNet(stages, preact=True, use_bias=True, **options)


KERAS = resnetv2.Config((2, 3, 2, 2), (256, 512, 768, 1024), keras=True)
CASES = (
    Case(
        "resnetv2_timm",
        ARCHITECTURE,
        "timm",
        _timm,
        {"stem": "stem", **{f"stage{i}": f"stages.{i - 1}" for i in range(1, 5)}, "neck": "norm"},
    ),
    # 72 pixels make odd maps, with which pooling needs no padding at one side.
    Case(
        "resnetv2_transformers",
        ARCHITECTURE,
        "transformers",
        lambda lib: _transformers(lib, CONFIG, CLASSES),
        {"stem": "bit.embedder", **{f"stage{i}": f"bit.encoder.stages.{i - 1}" for i in range(1, 5)}, "neck": "bit.norm"},
        size=72,
    ),
    Case(
        "resnetv2_keras",
        resnetv2.architecture(KERAS, architecture_of("keras_resnet50v2").preprocessing),
        "keras",
        _keras,
        {
            "stem": "pool1_pool",
            **{f"stage{i}": f"conv{i + 1}_block{n}_out" for i, n in enumerate(KERAS.depths, start=1)},
            "neck": "post_relu",
        },
        size=72,
    ),
)
