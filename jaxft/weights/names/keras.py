"""Keras' names. Its files have two kinds of them, and both follow from a network's layers in Keras' own order.

`keras`: a layer's own name, `block1_conv1.kernel`, as in the `.h5` files of keras.applications and of `model.save`.
`keras3`: its class and a number in that class, `layers.conv2d_1.vars.0`, as in Keras 3's `.weights.h5` and `.keras`.

What a container holds besides is cut by `jaxft.weights.keras_files`. Keras counts layers from the input, by their distance from
the output: a shortcut's convolution comes beside the last one of its block.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxft.weights.names.names import Names
from jaxft.weights.rules import IDENTITY, Op

#: [h, w, C, 1] to HWIO, whose input channels are those of a group: one.
DEPTHWISE = Op("depthwise", lambda x: x.transpose(0, 1, 3, 2), lambda x: x.transpose(0, 1, 3, 2))
#: The kernel of a network that reads blue, green, red: ours reads red, green, blue.
BGR = Op("bgr", lambda x: x[:, :, ::-1], lambda x: x[:, :, ::-1])
#: A dense layer that is written as a 1x1 convolution.
DENSE_AS_CONV = Op("dense as conv", lambda x: x.reshape(x.shape[-2:]), lambda x: x[None, None])

_CONV = {"kernel": "kernel", "bias": "bias"}
#: Class of a layer -> our leaves in the order of its weights, and what they are called there.
KINDS: dict[str, dict[str, str]] = {
    "conv2d": _CONV,
    "depthwise_conv2d": _CONV,
    "dense": _CONV,
    "batch_normalization": {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"},
    "layer_normalization": {"scale": "gamma", "bias": "beta"},
    "layer_scale": {"gamma": "variable"},
}


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer with weights.

    Attributes:
      ours: '/' path of our module.
      name: Keras' name.
      kind: its class, of `KINDS`.
      op: how its kernel is laid out here.
      former: names that older files have, or a layer that is put in its place.
      inside: the nested model that it is in.
      without: leaves of its kind that it lacks, where others follow.
    """

    ours: str
    name: str
    kind: str = "conv2d"
    op: Op = IDENTITY
    former: tuple[str, ...] = ()
    inside: str = ""
    without: tuple[str, ...] = ()

    @property
    def leaves(self) -> dict[str, str]:
        """Our leaves, and what they are called there."""
        return {own: theirs for own, theirs in KINDS[self.kind].items() if own not in self.without}


def conv(ours: str, name: str, **others: Any) -> Layer:
    return Layer(ours, name, **others)


def depthwise(ours: str, name: str, **others: Any) -> Layer:
    return Layer(ours, name, "depthwise_conv2d", DEPTHWISE, **others)


def norm(ours: str, name: str, **others: Any) -> Layer:
    return Layer(ours, name, "batch_normalization", **others)


def head(ours: str, name: str = "predictions", former: Iterable[str] = ()) -> Layer:
    """The classifier. One that somebody put on a network without top is called "dense" by Keras."""
    return Layer(ours, name, "dense", former=(*former, "dense"))


@dataclasses.dataclass(frozen=True)
class Network:
    """A network's layers in Keras' order.

    Attributes:
      layers: those with weights that are ours.
      normalized: mean and deviation of pixels in 0..1, where the network has a layer with them as weights.
      pixels: the same, where the files want other images than our network of that name does.
    """

    layers: Sequence[Layer]
    normalized: tuple[Sequence[float], Sequence[float]] | None = None
    pixels: tuple[tuple[float, ...], tuple[float, ...]] | None = None


def conventions(network: Callable[[Any], Network | None]) -> dict[str, Callable[[Any], Names | None]]:
    """The entries of a family's `CONVENTIONS`; `network` gives that of a config, None where Keras has none for it."""

    def using(named: Callable[[Network], Names]) -> Callable[[Any], Names | None]:
        def names(config: Any) -> Names | None:
            found = network(config)
            return None if found is None else dataclasses.replace(named(found), pixels=found.pixels)

        return names

    return {"keras": using(_by_name), "keras3": using(_by_number)}


def _ops(network: Network) -> dict[str, Op]:
    return {f"{layer.ours}/kernel": layer.op for layer in network.layers}


def _by_name(network: Network) -> Names:
    def parts(name: str, layer: Layer) -> dict[str, str]:
        return {f"{layer.ours}/{own}": f"{name}.{theirs}" for own, theirs in layer.leaves.items()}

    found: dict[str, str] = {}
    former: dict[int, dict[str, str]] = collections.defaultdict(dict)
    for layer in network.layers:
        found |= parts(layer.name, layer)
        for version, name in enumerate(layer.former):
            former[version] |= parts(name, layer)
    constants = _constants(network, "normalization", ("mean", "variance", "count"))
    return Names(found, tuple(former.values()), _ops(network), constants=constants, layouts={})


def _by_number(network: Network) -> Names:
    found, counts = {}, collections.Counter[tuple[str, str]]()
    for layer in network.layers:
        number = counts[layer.inside, layer.kind]
        counts[layer.inside, layer.kind] += 1
        base = f"layers.{layer.inside}.layers" if layer.inside else "layers"
        base += f".{layer.kind}_{number}" if number else f".{layer.kind}"
        for index, own in enumerate(layer.leaves):
            found[f"{layer.ours}/{own}"] = f"{base}.vars.{index}"
    constants = _constants(network, "layers.normalization.vars", ("0", "1", "2"))
    return Names(found, ops=_ops(network), constants=constants, layouts={})


def _constants(network: Network, layer: str, leaves: tuple[str, str, str]) -> Mapping[str, np.ndarray]:
    if network.normalized is None:
        return {}
    mean, deviation = (np.asarray(values, np.float32) for values in network.normalized)
    values = (mean, np.square(deviation), np.zeros((), np.int32))
    return {f"{layer}.{leaf}": value for leaf, value in zip(leaves, values, strict=True)}
