"""DenseNet's names: ours are torchvision's, which timm shares."""

from __future__ import annotations

from jaxft.models.densenet import ARCHITECTURES, Config
from jaxft.models.layers import TORCH_NORM
from jaxft.weights.names import keras
from jaxft.weights.names.names import Names


def _same(config: Config) -> Names | None:
    """torchvision's published files have former names of what is in a dense layer, `norm.1` and its like, which it renames."""
    if config.norm != TORCH_NORM:
        return None
    also = {
        f"features/{{block}}/{{layer}}/{part}{number}": f"features.{{block}}.{{layer}}.{part}.{number}"
        for part in ("norm", "conv")
        for number in (1, 2)
    }
    return Names(also=also)


def _keras(config: Config) -> keras.Network | None:
    if config.norm == TORCH_NORM:
        return None
    layers = [keras.conv("features/conv0", "conv1_conv"), keras.norm("features/norm0", "conv1_bn")]
    for block, depth in enumerate(config.depths, start=1):
        if block > 1:
            ours, theirs = f"features/transition{block - 1}", f"pool{block}"
            layers += [keras.norm(f"{ours}/norm", f"{theirs}_bn"), keras.conv(f"{ours}/conv", f"{theirs}_conv")]
        for layer in range(1, depth + 1):
            ours, theirs = f"features/denseblock{block}/denselayer{layer}", f"conv{block + 1}_block{layer}"
            for number in (1, 2):
                layers += [
                    keras.norm(f"{ours}/norm{number}", f"{theirs}_{number - 1}_bn"),
                    keras.conv(f"{ours}/conv{number}", f"{theirs}_{number}_conv"),
                ]
    return keras.Network([*layers, keras.norm("features/norm5", "bn"), keras.head("classifier")])


CONVENTIONS = {"torchvision": _same, "timm": _same, **keras.conventions(_keras)}
_KERAS = {f"keras_densenet{depth}": f"DenseNet{depth}" for depth in (121, 169, 201)}
ORIGINALS = {
    **{library: {name: name for name in ARCHITECTURES if name not in _KERAS} for library in ("torchvision", "timm")},
    "keras": _KERAS,
}
