"""SqueezeNet, whose widths torchvision fixes: the whole networks on small images."""

from jaxft.models import architecture_of
from originals import CLASSES, Case


def _case(version, size, stages):
    name = f"squeezenet{version}"
    make = lambda lib: lib.torchvision.models.get_model(name, num_classes=CLASSES, dropout=0.0)
    stages = {"stem": "features.1", **{f"stage{i}": f"features.{index}" for i, index in enumerate(stages, start=1)}}
    return Case(name, architecture_of(name), "torchvision", make, stages, {"dropout": 0.0}, size)


CASES = (_case("1_0", 64, (5, 10, 12)), _case("1_1", 72, (4, 7, 12)))
