"""DINOv2 (Oquab et al., 2024) and DINOv2 with registers (Darcet et al., 2024): vit.py's network, in timm's form and names.

Their published weights have no head, which is therefore new. With registers, timm has added the class token's position to the
token itself; Hugging Face and the authors keep it: a parameter of another shape, hence another network, "_hf". "_lc" are the
classifiers of Hugging Face: a dense layer on the class token and the mean of the patches.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxft.models.vit import SIZES, Config, architecture
from jaxft.preprocessing import Preprocessing

_PREPROCESSING = Preprocessing(518, 518, "bicubic")
_PLAIN = {size: Config(*SIZES[size], 14, layer_scale=1e-5) for size in ("small", "base", "large")}
_PLAIN["giant"] = Config(1536, 40, 24, 14, hidden=8192, activation="swiglu", layer_scale=1e-5)

#: End of the name -> what differs.
_FORMS: dict[str, dict[str, Any]] = {
    "dinov2": {},
    "dinov2_lc": {"pool": "token+avg"},
    "reg4_dinov2": {"registers": 4, "placed": 0},
    "reg4_dinov2_hf": {"registers": 4},
    "reg4_dinov2_lc": {"registers": 4, "pool": "token+avg"},
}
ARCHITECTURES = {
    f"vit_{size}_patch14_{name}": architecture(dataclasses.replace(config, **fields), _PREPROCESSING, "dinov2")
    for name, fields in _FORMS.items()
    for size, config in _PLAIN.items()
}
