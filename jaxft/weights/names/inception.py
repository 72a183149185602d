"""Inception-v3's names: ours are torchvision's, which timm shares."""

from __future__ import annotations

import itertools

from jaxft.models.inception import STAGES, STEM, Block, Config
from jaxft.weights.names import keras
from jaxft.weights.names.names import Names


def _same(config: Config) -> Names | None:
    if not config.count_padding:
        return None
    return Names() if config.aux else Names(ignored=("AuxLogits.{layer}.{leaf}", "AuxLogits.{layer}.{part}.{leaf}"))


def _keras(config: Config) -> keras.Network | None:
    """Layers have automatic names there, in the order of creation; counted are they from the input, see `_distances`."""
    if config.count_padding:
        return None
    found, number = [], itertools.count()

    def pair(ours: str) -> list[keras.Layer]:
        end = f"_{index}" if (index := next(number)) else ""
        norm = keras.norm(f"{ours}/bn", f"batch_normalization{end}", without=("scale",))
        return [keras.conv(f"{ours}/conv", f"conv2d{end}"), norm]

    for ours in STEM:
        found += pair(ours)
    for blocks in STAGES.values():
        for name, block in blocks.items():
            pairs = [(pair(f"Mixed_{name}/{layer}"), distance) for layer, distance in _distances(block)]
            for layers, _ in sorted(pairs, key=lambda entry: -entry[1]):
                found += layers
    return keras.Network([*found, keras.head("fc")])


def _distances(block: Block) -> list[tuple[str, int]]:
    """A block's convolutions as Keras makes them, and how far each is from the block's end: with BatchNorm and ReLU a step is
    three layers, and the parts of a branch that end side by side are joined first."""
    found = []
    for branch in block.branches:
        split = branch[-1][0][-1] in "ab"
        for index, (name, *_) in enumerate(branch):
            after = sum(layer[-1] not in "ab" for layer, *_ in branch[index + 1 :]) + (split and name[-1] not in "ab")
            found.append((name, 3 * after + split))
    return [*found, ("branch_pool", 0)] if block.pool else found


CONVENTIONS = {"torchvision": _same, "timm": _same, **keras.conventions(_keras)}
ORIGINALS = {
    "torchvision": {"inception_v3": "inception_v3", "inception_v3_aux": "inception_v3"},
    "timm": {"inception_v3": "inception_v3"},
    "keras": {"keras_inception_v3": "InceptionV3"},
}
ARGUMENTS = {
    "inception_v3": {"aux_logits": False, "init_weights": False},
    "inception_v3_aux": {"aux_logits": True, "init_weights": False},
}
