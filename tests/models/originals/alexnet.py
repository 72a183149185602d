"""AlexNet, whose widths torchvision fixes: the whole network on small images, with a last map of 3x3 and of 1x1."""

from jaxft.models import architecture_of
from originals import CLASSES, Case

STAGES = {
    "stage1": "features.2",
    "stage2": "features.5",
    "stage3": "features.7",
    "stage4": "features.9",
    "stage5": "features.12",
}
NET, OPTIONS = architecture_of("alexnet"), {"dropout": 0.0}


def _torchvision(lib):
    return lib.torchvision.models.alexnet(num_classes=CLASSES, dropout=0.0)


CASES = (
    Case("alexnet", NET, "torchvision", _torchvision, {**STAGES, "neck": "classifier.5"}, OPTIONS, size=128),
    Case("alexnet_smallest", NET, "torchvision", _torchvision, STAGES, OPTIONS),
)
