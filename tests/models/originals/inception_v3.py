"""Inception-v3, whose widths both libraries fix: the whole network on the smallest images. The auxiliary head, which needs 299
pixels, is compared by `jaxft verify`."""

from jaxft.models import architecture_of
from originals import CLASSES, Case

STAGES = {"stem": "maxpool2", "stage1": "Mixed_5d", "stage2": "Mixed_6e", "stage3": "Mixed_7c"}


def _torchvision(lib):
    return lib.torchvision.models.inception_v3(num_classes=CLASSES, aux_logits=False, init_weights=False, dropout=0.0)


CASES = (Case("inception_v3", architecture_of("inception_v3"), "torchvision", _torchvision, STAGES, {"dropout": 0.0}, 75),)
