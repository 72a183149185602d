"""The image towers of SigLIP (Zhai et al., 2023) and SigLIP 2 (Tschannen et al., 2025): vit.py's network, in timm's form and
names but for the pooling's query, key and value, which are one layer here as in the blocks.

Where timm has the exact GELU, the network of Hugging Face and the authors, "_hf", has the one by way of tanh; pictures are
squashed to a square there.
"""

from __future__ import annotations

import dataclasses

from jaxft.models.vit import SIZES, Config, architecture
from jaxft.preprocessing import Preprocessing

_SHAPES = {**SIZES, "so400m": (1152, 27, 16)}
#: (Size, patch, native input size in pixels), timm's activation.
_MEMBERS = (
    ("base", 32, 256, "gelu_tanh"),
    ("base", 16, 224, "gelu"),
    ("base", 16, 256, "gelu"),
    ("base", 16, 384, "gelu"),
    ("base", 16, 512, "gelu"),
    ("large", 16, 256, "gelu"),
    ("large", 16, 384, "gelu"),
    ("large", 16, 512, "gelu_tanh"),
    ("so400m", 14, 224, "gelu"),
    ("so400m", 14, 378, "gelu"),
    ("so400m", 16, 256, "gelu_tanh"),
    ("so400m", 16, 384, "gelu_tanh"),
    ("so400m", 16, 512, "gelu_tanh"),
)


def _config(size: str, patch: int, activation: str) -> Config:
    hidden = 4304 if size == "so400m" else 0
    return Config(*_SHAPES[size], patch, hidden, activation, class_token=False, placed=0, pool="map")


def _preprocessing(pixels: int) -> Preprocessing:
    return Preprocessing(pixels, pixels, "bicubic", (0.5,) * 3, (0.5,) * 3)


ARCHITECTURES = {
    f"vit_{size}_patch{patch}_siglip_{pixels}": architecture(_config(size, patch, activation), _preprocessing(pixels), "siglip")
    for size, patch, pixels, activation in _MEMBERS
}
ARCHITECTURES |= {
    f"{name}_hf": dataclasses.replace(
        entry,
        config=dataclasses.replace(entry.config, activation="gelu_tanh"),
        preprocessing=dataclasses.replace(entry.preprocessing, squash=True),
    )
    for name, entry in ARCHITECTURES.items()
    if entry.config.activation == "gelu"
}
