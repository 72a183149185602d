"""Inception-v3, whose widths all libraries fix: the whole network on the smallest images. The auxiliary head, which needs 299
pixels, is compared by `jaxft verify`."""

from jaxft.models import architecture_of
from originals import CLASSES, Case

STAGES = {"stem": "maxpool2", "stage1": "Mixed_5d", "stage2": "Mixed_6e", "stage3": "Mixed_7c"}


def _torchvision(lib):
    return lib.torchvision.models.inception_v3(num_classes=CLASSES, aux_logits=False, init_weights=False, dropout=0.0)


def _keras(lib):
    options = {"weights": None, "input_shape": (75, 75, 3), "classes": CLASSES, "classifier_activation": None}
    return lib.keras.applications.InceptionV3(**options)


KERAS = {"stem": "max_pooling2d_1", "stage1": "mixed2", "stage2": "mixed7", "stage3": "mixed10"}
OPTIONS = {"options": {"dropout": 0.0}, "size": 75}
CASES = (
    Case("inception_v3", architecture_of("inception_v3"), "torchvision", _torchvision, STAGES, **OPTIONS),
    Case("inception_v3_keras", architecture_of("keras_inception_v3"), "keras", _keras, KERAS, **OPTIONS),
)
