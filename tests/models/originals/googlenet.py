"""GoogLeNet, whose widths torchvision fixes: the whole network on small images."""

from jaxft.models import architecture_of
from originals import CLASSES, Case

STAGES = {"stem": "conv3", "stage1": "inception3b", "stage2": "inception4e", "stage3": "inception5b"}


def _torchvision(lib):
    return lib.torchvision.models.googlenet(num_classes=CLASSES, init_weights=False, dropout=0.0, dropout_aux=0.0)


CASES = (
    # 72 pixels: poolings round up.
    Case(
        "googlenet_aux",
        architecture_of("googlenet_aux"),
        "torchvision",
        _torchvision,
        STAGES,
        {"dropout": 0.0},
        72,
        aux={"aux1": lambda output: output.aux_logits1, "aux2": lambda output: output.aux_logits2},
    ),
)
