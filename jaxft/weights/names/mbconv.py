"""What the name tables of all networks of inverted residuals need. Our names are timm's."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from jaxft.models.mbconv import LAYERS, Block, Config
from jaxft.weights.names import keras
from jaxft.weights.names.names import Names


def timm(config: Config) -> Names | None:
    """Ours, of networks that timm has."""
    return Names() if config.unbiased else None


def keras_of(layers: Callable[[Config], keras.Network]) -> Callable[[Config], keras.Network | None]:
    """`layers` for Keras' own networks: files would fit those of others, whose statistics differ in training."""
    return lambda config: None if config.unbiased else layers(config)


def keras_block(ours: str, block: Block, theirs: list[tuple[str, str]], squeeze: tuple[str, str]) -> list[keras.Layer]:
    """A block's layers in Keras' order; for the arguments see `layers`."""
    found: list[keras.Layer] = []
    own = LAYERS[block.kind]
    for number, (layer, (convolution, norm)) in enumerate(zip(own, theirs, strict=True), start=1):
        if block.squeeze and number == len(own):
            names = zip(("conv_reduce", "conv_expand"), squeeze, strict=True)
            found += [keras.conv(f"{ours}/se/{inner}", name) for inner, name in names]
        make = keras.depthwise if layer == "conv_dw" else keras.conv
        found += [make(f"{ours}/{layer}", convolution), keras.norm(f"{ours}/bn{number}", norm)]
    return found


def blocks(config: Config) -> Iterator[tuple[str, Block, int, int]]:
    """Of each block our path, what it is, the number of its stage, and its number in the whole network; all from 0."""
    number = 0
    for stage, own in enumerate(config.stages):
        for index, block in enumerate(own):
            yield f"blocks/{stage}/{index}", block, stage, number
            number += 1


def layers(ours: str, block: Block, theirs: list[tuple[str, str]], squeeze: tuple[str, str] = ("", "")) -> dict[str, str]:
    """The parts of a block.

    Args:
      ours: its path.
      block: what it is.
      theirs: what each convolution and its normalisation are called, in the order of the block.
      squeeze: the two layers of squeeze-and-excitation.
    """
    parts: dict[str, str] = {}
    for number, (own, (convolution, norm)) in enumerate(zip(LAYERS[block.kind], theirs, strict=True), start=1):
        parts |= {f"{ours}/{own}": convolution, f"{ours}/bn{number}": norm}
    if block.squeeze:
        parts |= {f"{ours}/se/conv_reduce": squeeze[0], f"{ours}/se/conv_expand": squeeze[1]}
    return parts


def sequence(ours: str, block: Block, theirs: str) -> dict[str, str]:
    """The parts of one of torchvision's blocks: pairs of convolution and normalisation, the squeezing before the last."""
    last = len(LAYERS[block.kind]) - 1
    numbers = [*range(last), last + bool(block.squeeze)]
    pairs = [(f"{theirs}.{number}.0", f"{theirs}.{number}.1") for number in numbers]
    return layers(ours, block, pairs, (f"{theirs}.{last}.fc1", f"{theirs}.{last}.fc2"))


def padded(names: Callable[[Config], Names], *, same: bool) -> Callable[[Config], Names | None]:
    """`names` for networks of one kind of padding: files would fit those of the other, which compute something else."""
    return lambda config: names(config) if config.same is same and config.unbiased else None
