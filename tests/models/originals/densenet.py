"""DenseNet."""

from jaxft.models import densenet
from jaxft.models.layers import KERAS_NORM
from originals import CLASSES, Case

STAGES = {"stem": "features.pool0", **{f"stage{i}": f"features.denseblock{i}" for i in range(1, 5)}}
CONFIG = densenet.Config((2, 1, 3, 2), growth=16)


def _torchvision(lib):
    return lib.torchvision.models.DenseNet(16, CONFIG.depths, 32, num_classes=CLASSES)


def _timm(lib):
    return lib.timm.create_model("densenet121", growth_rate=16, block_config=CONFIG.depths, num_classes=CLASSES)


def _keras(lib):
    options = {"weights": None, "input_shape": (72, 72, 3), "classes": CLASSES, "classifier_activation": None}
    return lib.applications.densenet.DenseNet(list(CONFIG.depths), **options)


KERAS = densenet.Config(CONFIG.depths, norm=KERAS_NORM)
CASES = (
    # 72 pixels make odd maps, whose last row and column pooling leaves out.
    Case("densenet_torchvision", densenet.architecture(CONFIG), "torchvision", _torchvision, STAGES, size=72),
    # Its last normalisation has the ReLU in it.
    Case("densenet_timm", densenet.architecture(CONFIG), "timm", _timm, {**STAGES, "neck": "features.norm5"}),
    Case(
        "densenet_keras",
        densenet.architecture(KERAS),
        "keras",
        _keras,
        {
            "stem": "pool1",
            **{f"stage{i}": f"conv{i + 1}_block{n}_concat" for i, n in enumerate(CONFIG.depths, start=1)},
            "neck": "relu",
        },
        size=72,
    ),
)
