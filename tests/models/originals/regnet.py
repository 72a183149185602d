"""RegNet."""

from jaxft.models import regnet
from originals import CLASSES, Case

# Groups of 24 channels fit neither width nor each other's rounding: 24 or 48 channels in the second stage.
RULE = {"depth": 6, "initial": 16, "slope": 20.0, "step": 2.0, "group": 24}
X, Y = regnet.Config(**RULE), regnet.Config(**RULE, squeeze=True)
Y_TORCHVISION = regnet.Config(**RULE, squeeze=True, round_up=True)

STAGES = {"stem": "stem", **{f"stage{i}": f"s{i}" for i in range(1, 5)}}
STAGES_TORCHVISION = {"stem": "stem", **{f"stage{i}": f"trunk_output.block{i}" for i in range(1, 5)}}
STAGES_TRANSFORMERS = {
    "stem": "regnet.embedder",
    **{f"stage{i}": f"regnet.encoder.stages.{i - 1}" for i in range(1, 5)},
}


def _timm(lib):
    return lib.timm.create_model("regnetx_002", depth=6, w0=16, wa=20.0, wm=2.0, group_size=24, num_classes=CLASSES)


def _torchvision(lib):
    models = lib.torchvision.models.regnet
    params = models.BlockParams.from_init_params(depth=6, w_0=16, w_a=20.0, w_m=2.0, group_width=24, se_ratio=0.25)
    return models.RegNet(params, num_classes=CLASSES)


def _transformers(lib, config, classes):
    shapes = config.stages()
    theirs = lib.transformers.RegNetConfig(
        depths=[depth for depth, _, _ in shapes],
        hidden_sizes=[width for _, width, _ in shapes],
        groups_width=config.group,
        layer_type="y" if config.squeeze else "x",
        num_labels=classes,
    )
    return lib.transformers.RegNetForImageClassification(theirs)


CASES = (
    Case("regnet_timm", regnet.architecture(X), "timm", _timm, STAGES),
    Case("regnet_torchvision", regnet.architecture(Y_TORCHVISION), "torchvision", _torchvision, STAGES_TORCHVISION),
    Case(
        "regnet_transformers",
        regnet.architecture(Y),
        "transformers",
        lambda lib: _transformers(lib, Y, CLASSES),
        STAGES_TRANSFORMERS,
    ),
)
