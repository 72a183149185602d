"""MLP-Mixer."""

from jaxft.models import mixer
from originals import CLASSES, Case


def _timm(lib):
    return lib.timm.models.mlp_mixer.MlpMixer(CLASSES, 64, patch_size=16, num_blocks=2, embed_dim=32)


CASES = (
    Case(
        "mixer_timm",
        mixer.architecture(mixer.Config(32, 2, 16)),
        "timm",
        _timm,
        {"stem": "stem", "stage1": "blocks.0", "stage3": "blocks.1", "neck": "norm"},
    ),
)
