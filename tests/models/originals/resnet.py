"""ResNet, ResNeXt, Wide ResNet, ResNet-D and SE-ResNet."""

from jaxft.models import resnet
from jaxft.models.layers import KERAS_NORM
from originals import CLASSES, Case, bgr

STAGES = {"stem": "maxpool", **{f"stage{i}": f"layer{i}" for i in range(1, 5)}}


def _torchvision(block, layers, **options):
    def make(lib):
        models = lib.torchvision.models.resnet
        return models.ResNet(getattr(models, block), layers, num_classes=CLASSES, **options)

    return make


def _transformers(lib, config, classes):
    widths = [width * 4 if config.bottleneck else width for width in resnet.WIDTHS]
    theirs = lib.transformers.ResNetConfig(
        depths=list(config.depths),
        hidden_sizes=widths,
        layer_type="bottleneck" if config.bottleneck else "basic",
        downsample_in_bottleneck=config.early_stride,
        num_labels=classes,
    )
    return lib.transformers.ResNetForImageClassification(theirs)


def _case(name, config, theirs, convention="torchvision", stages=STAGES, size=64):
    return Case(f"resnet_{name}", resnet.architecture(config), convention, theirs, stages, size=size)


def _case_transformers(name, config):
    stages = {
        "stem": "resnet.embedder.pooler",
        **{f"stage{i}": f"resnet.encoder.stages.{i - 1}" for i in range(1, 5)},
    }
    return _case(name, config, lambda lib: _transformers(lib, config, CLASSES), "transformers", stages)


def _keras(lib):
    module = lib.applications.resnet

    def stages(x):
        for number, (depth, width) in enumerate(zip(KERAS.depths, resnet.WIDTHS, strict=True), start=2):
            stride = 1 if number == 2 else 2
            x = module.stack_residual_blocks_v1(x, width, depth, stride1=stride, name=f"conv{number}")
        return x

    options = {"weights": None, "input_shape": (64, 64, 3), "classes": CLASSES, "classifier_activation": None}
    return module.ResNet(stages, preact=False, use_bias=True, **options)


KERAS = resnet.Config((1, 2, 1, 1), True, early_stride=True, bias=True, norm=KERAS_NORM)
CASES = (
    _case("basic", resnet.Config((1, 2, 1, 1), False), _torchvision("BasicBlock", [1, 2, 1, 1])),
    _case("bottleneck", resnet.Config((1, 2, 1, 1), True), _torchvision("Bottleneck", [1, 2, 1, 1])),
    _case(
        "resnext",
        resnet.Config((1, 1, 1, 1), True, 32, 4),
        _torchvision("Bottleneck", [1, 1, 1, 1], groups=32, width_per_group=4),
    ),
    _case(
        "wide",
        resnet.Config((1, 1, 1, 1), True, 1, 128),
        lambda lib: lib.timm.create_model("wide_resnet50_2", layers=(1, 1, 1, 1), num_classes=CLASSES),
        "timm",
    ),
    # 72 pixels make odd maps, on which average pooling rounds up.
    _case(
        "d",
        resnet.Config((1, 1, 1, 1), False, stem=(32, 32, 64), pooled_shortcut=True),
        lambda lib: lib.timm.create_model("resnet18d", layers=(1, 1, 1, 1), num_classes=CLASSES),
        "timm",
        size=72,
    ),
    _case(
        "se",
        resnet.Config((1, 1, 1, 1), True, 32, 4, stem=(24, 32, 64), pooled_shortcut=True, squeeze=True),
        lambda lib: lib.timm.create_model("seresnext26t_32x4d", layers=(1, 1, 1, 1), num_classes=CLASSES),
        "timm",
    ),
    _case_transformers("transformers", resnet.Config((1, 2, 1, 1), False)),
    _case_transformers("early_stride", resnet.Config((1, 1, 2, 1), True, early_stride=True)),
    Case(
        "resnet_keras",
        resnet.architecture(KERAS),
        "keras",
        _keras,
        {"stem": "pool1_pool", **{f"stage{i}": f"conv{i + 1}_block{n}_out" for i, n in enumerate(KERAS.depths, start=1)}},
        pixels=bgr,
    ),
)
