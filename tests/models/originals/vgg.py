"""VGG, as timm makes it. torchvision fixes the dense layers of 120 million parameters: those are compared in test_parity.py."""

from functools import partial

from jaxft.models import vgg
from originals import CLASSES, Case

WIDTHS, DEPTHS = (8, 8, 8, 8, 16), (1, 1, 2, 1, 1)
#: What timm makes layers of: channels, and M for pooling.
LAYERS = [layer for width, depth in zip(WIDTHS, DEPTHS, strict=True) for layer in (*[width] * depth, "M")]


def _timm(lib, batch_norm):
    norm = lib.torch.nn.BatchNorm2d if batch_norm else None
    return lib.timm.models.vgg.VGG(LAYERS, num_classes=CLASSES, norm_layer=norm)


def _case(name, batch_norm):
    config = vgg.Config(DEPTHS, batch_norm, WIDTHS)
    ends, step = [], 3 if batch_norm else 2
    for depth in DEPTHS:
        ends.append((ends[-1] + 1 if ends else 0) + depth * step)
    stages = {f"stage{number}": f"features.{index}" for number, index in enumerate(ends, start=1)}
    return Case(
        f"vgg_{name}", vgg.architecture(config), "timm", partial(_timm, batch_norm=batch_norm), stages, {"dropout": 0.0}
    )


CASES = (_case("plain", False), _case("bn", True))
