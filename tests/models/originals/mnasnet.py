"""MNASNet."""

import dataclasses
import functools

from jaxft.models import mnasnet
from originals import CLASSES, Case


def _config(width):
    """One block in each stage. The first is never added to its input there: a width where it cannot be."""
    config = mnasnet.config(width)
    stages = tuple(stage[:1] for stage in config.stages)
    return dataclasses.replace(config, stages=stages, momentum=1 - 0.9997, dropout=0.0)


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


def _full_timm(lib, name):
    return lib.timm.create_model(name) if lib.timm.is_model(name) else None


def _full_torchvision(lib, name):
    theirs = {"050": "mnasnet0_5", "075": "mnasnet0_75", "100": "mnasnet1_0", "130": "mnasnet1_3"}
    return lib.torchvision.models.get_model(theirs[name.rsplit("_", 1)[1]])


FULL = {"timm": _full_timm, "torchvision": _full_torchvision}
