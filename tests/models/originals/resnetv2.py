"""ResNet v2: BiT."""

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
)


def transformers(lib, name):
    return _transformers(lib, architecture_of(name).config, 1000)
