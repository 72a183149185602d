"""What Keras' files hold: the tensors of a network under plain names, and a `.weights.h5` that Keras 3 loads."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from jaxft.errors import JaxftError
from jaxft.files import open_whole

#: Beside the layers in a file of `model.save`, and random states among them.
_NO_WEIGHTS = re.compile(r"(optimizer|optimizer_weights|top_level_model_weights|metrics)/|.*/?seed_generator(_\d+)?/")
#: What stands before a network's own layers in Keras 3: attributes of a class of somebody's own, and a model in a model.
_AROUND = re.compile(r"(?:(?!layers/)[^/]+/)*(?:layers/functional(?:_\d+)?/)*(?=layers/)")
#: Names that Keras gives by itself, numbered through all networks of a program.
_AUTOMATIC = re.compile(r"(conv2d|batch_normalization|layer_normalization|normalization|dense)(?:_(\d+))?")
#: ConvNeXt's layers begin with the name of the network, which may be any.
_CONVNEXT = re.compile(r".*?_(?=(?:stem|head|downsampling)_(?:conv|layernorm|dense)|stage_\d+_block_\d+_)")
#: Leaves in Keras 1; depthwise kernels in Keras 2; weights without a name.
_LEAVES = {"W": "kernel", "b": "bias", "depthwise_kernel": "kernel", "Variable": "variable"}


def plain(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A network's tensors out of a file: `block1_conv1.kernel`, or `layers.conv2d_1.vars.0` of Keras 3.

    Optimizers and random states are left out, prefixes cut, automatic names (`conv2d_95`) numbered from the network's first.
    """
    wanted = [name for name in tensors if not _NO_WEIGHTS.match(name)]
    if any("/vars/" in f"/{name}" for name in wanted):
        found = {name: _AROUND.sub("", name, count=1).replace("/", ".") for name in wanted}
        if len(set(found.values())) < len(found):  # several networks, or parts of one
            found = {name: name.replace("/", ".") for name in wanted}
    else:
        layers = {name: _layer_and_leaf(name.removeprefix("model_weights/")) for name in wanted}
        numbered = _numbered({layer for layer, _ in layers.values()})
        found = {name: f"{numbered[layer]}.{leaf}" for name, (layer, leaf) in layers.items()}
    return {plain_name: tensors[name] for name, plain_name in found.items()}


def _layer_and_leaf(path: str) -> tuple[str, str]:
    """Of a path in a file that names layers: `conv1/bn/conv1/bn/gamma:0` is `gamma` of `conv1_bn`.

    The group of a layer comes first, its weight's own name next; of a model in the network, the layer's name is in the latter.
    """
    *groups, leaf = path.split("/")
    leaf, half = re.sub(r":\d+$", "", leaf), len(groups) // 2
    if len(groups) == 1:  # Keras 1: block1_conv1/block1_conv1_W_1:0
        leaf = leaf.removeprefix(f"{groups[0]}_")
    leaf = re.sub(r"_\d+$", "", leaf)
    layer = "_".join(groups[:half]) if groups[:half] == groups[half:] else groups[-1]
    return _CONVNEXT.sub("", layer, count=1), _LEAVES.get(leaf, leaf)


def _numbered(layers: set[str]) -> dict[str, str]:
    """Layer -> its name, numbered anew from zero where the name is automatic."""
    found = {layer: layer for layer in layers}
    kinds: dict[str, dict[int, str]] = {}
    for layer in layers:
        if match := _AUTOMATIC.fullmatch(layer):
            kinds.setdefault(match[1], {})[int(match[2] or 0)] = layer
    for kind, numbers in kinds.items():
        for number, (_, layer) in enumerate(sorted(numbers.items())):
            found[layer] = f"{kind}_{number}" if number else kind
    return found


def save_weights_h5(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes tensors in Keras 3's names (`layers.conv2d_1.vars.0`) as the `.weights.h5` that `model.load_weights` takes."""
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        for name, value in tensors.items():
            file.create_dataset(name.replace(".", "/"), data=value)
    try:
        with open_whole(path) as out:
            out.write(memory.getbuffer())
    except OSError as error:
        raise JaxftError(f"cannot write {path}: {error.strerror or error}") from error
