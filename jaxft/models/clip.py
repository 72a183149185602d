"""The image towers of CLIP (Radford et al., 2021; Cherti et al., 2023): vit.py's network, in timm's form and names.

OpenAI trained with `quick_gelu`, others with the exact GELU. The projection into the space shared with texts has no bias and is
no part of the network: a head for other classes takes its place. timm's files hold it as a head of 512 or more "classes".
"""

from __future__ import annotations

from jaxft.models.vit import SIZES, Config, architecture
from jaxft.preprocessing import Preprocessing

_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_MEMBERS = (("base", 32, 224), ("base", 16, 224), ("large", 14, 224), ("large", 14, 336), ("huge", 14, 224))
ARCHITECTURES = {
    f"vit_{size}_patch{patch}_clip_{kind}{pixels}": architecture(
        Config(*SIZES[size], patch, activation=activation, epsilon=1e-5, pre_norm=True),
        Preprocessing(pixels, pixels, "bicubic", _MEAN, _STD),
        "clip",
    )
    for kind, activation in (("", "gelu"), ("quickgelu_", "quick_gelu"))
    for size, patch, pixels in _MEMBERS
}
