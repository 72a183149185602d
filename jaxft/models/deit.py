"""DeiT (Touvron et al., 2021) and DeiT III (Touvron et al., 2022): vit.py's network, in timm's form and names.

A distilled DeiT has a second token before the patches and a second head, which learnt what another network said. Its features
are the two tokens side by side, 2 D wide, its logits the mean of the heads': in training too, as timm has it unless told
otherwise.
"""

from __future__ import annotations

import dataclasses

from jaxft.models.vit import SIZES, Config, architecture
from jaxft.preprocessing import Preprocessing

_SIZES = {**SIZES, "medium": (512, 12, 8)}


def _plain(size: str) -> Config:
    return Config(*_SIZES[size])


def _distilled(size: str) -> Config:
    return Config(*_SIZES[size], dist_token=True, placed=2, pool="tokens")


def _third(size: str, patch: int) -> Config:
    """DeiT III: scaled branches, and no position for the class token."""
    return Config(*_SIZES[size], patch, placed=0, layer_scale=1e-6)


_FIRST = {
    f"deit_{size}{kind}_patch16_{pixels}": (config(size), pixels)
    for kind, config in (("", _plain), ("_distilled", _distilled))
    for size, pixels in (("tiny", 224), ("small", 224), ("base", 224), ("base", 384))
}
_THIRD = {
    f"deit3_{size}_patch{patch}_{pixels}": (_third(size, patch), pixels)
    for size, patch, sizes in (
        ("small", 16, (224, 384)),
        ("medium", 16, (224,)),
        ("base", 16, (224, 384)),
        ("large", 16, (224, 384)),
        ("huge", 14, (224,)),
    )
    for pixels in sizes
}
ARCHITECTURES = {
    name: architecture(config, Preprocessing(pixels, 248 if pixels == 224 else pixels, "bicubic"), "deit")
    for name, (config, pixels) in (_FIRST | _THIRD).items()
}
#: As Hugging Face's transformers has them: LayerNorms with another epsilon.
ARCHITECTURES |= {
    f"{name}_hf": architecture(
        dataclasses.replace(config, epsilon=1e-12), Preprocessing(224, 256, "bicubic", squash=True).with_size(pixels), "deit"
    )
    for name, (config, pixels) in _FIRST.items()
}
