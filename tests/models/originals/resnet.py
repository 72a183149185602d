"""ResNet, ResNeXt and Wide ResNet."""

from jaxft.models import resnet
from originals import CLASSES, Case

STAGES = {"stem": "maxpool", **{f"stage{i}": f"layer{i}" for i in range(1, 5)}}


def _torchvision(block, layers, **options):
    def make(lib):
        models = lib.torchvision.models.resnet
        return models.ResNet(getattr(models, block), layers, num_classes=CLASSES, **options)

    return make


def _case(name, config, theirs, convention="torchvision"):
    return Case(f"resnet_{name}", resnet.architecture(config), convention, theirs, STAGES)


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
)
