"""MNASNet."""

import dataclasses
import functools

from jaxft.models import mnasnet
from originals import CLASSES, Case


def _config(width):
    """One block in each stage. The first is never added to its input there: a width where it cannot be."""
    config = mnasnet.config(width)
    stages = tuple(stage[:1] for stage in config.stages)
    return dataclasses.replace(config, stages=stages, momentum=mnasnet.TORCHVISION, dropout=0.0)


def _torchvision(lib):
    """It reads no state dict without metadata: here it reads one as other modules do."""
    network = lib.torchvision.models.MNASNet(0.35, CLASSES, dropout=0.0)
    for number in range(8, 14):
        network.layers[number] = network.layers[number][:1]
    module = lib.torch.nn.Module
    network._load_from_state_dict = functools.partial(module._load_from_state_dict, network)
    return network


STAGES = {
    "stem": "layers.2",
    "stage1": "layers.7",
    **{f"stage{i}": f"layers.{i + 6}" for i in range(2, 8)},
    "neck": "layers.16",
}
CASES = (Case("mnasnet_torchvision", mnasnet.architecture(_config(0.35)), "torchvision", _torchvision, STAGES),)
