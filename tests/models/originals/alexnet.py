"""AlexNet. torchvision's has fixed widths: narrow layers are put in their place."""

from jaxft.models import alexnet
from originals import CLASSES, Case

CONFIG = alexnet.Config((8, 12, 24, 16, 16), 32)
STAGES = {"stage1": "features.2", "stage2": "features.5", "stage3": "features.12"}


def _torchvision(lib):
    nn, width, dense = lib.torch.nn, (3, *CONFIG.widths), CONFIG.dense
    with lib.torch.device("meta"):
        network = lib.torchvision.models.AlexNet(num_classes=CLASSES, dropout=0.0)
    for number, index in enumerate((0, 3, 6, 8, 10)):
        old = network.features[index]
        network.features[index] = nn.Conv2d(*width[number : number + 2], old.kernel_size, old.stride, old.padding)
    for index, shape in {1: (width[-1] * 6 * 6, dense), 4: (dense, dense), 6: (dense, CLASSES)}.items():
        network.classifier[index] = nn.Linear(*shape)
    return network


def _case(name, size):
    architecture = alexnet.architecture(CONFIG)
    return Case(f"alexnet_{name}", architecture, "torchvision", _torchvision, STAGES, options={"dropout": 0.0}, size=size)


CASES = (_case("smallest", 64), _case("wide_map", 136))  # last maps of 1x1 and 3x3
