"""Swin Transformer V2. torchvision's is compared in test_swin.py: it has parameters that have no part in the network."""

from jaxft.models import swin
from originals import CLASSES, Case
from originals.swin import DEPTHS, HEADS, TIMM, WIDTH, maps

#: Of maps of 24, 12, 6 and 3: whole windows, the last two not shifted.
CONFIG, SIZE = swin.Config(WIDTH, DEPTHS, HEADS, (6, 6, 6, 3), v2=True), 96


def _timm(lib):
    options = {"img_size": SIZE, "embed_dim": WIDTH, "depths": DEPTHS, "num_heads": HEADS, "window_size": 6}
    return lib.timm.create_model("swinv2_tiny_window8_256", num_classes=CLASSES, drop_path_rate=0, **options)


def _transformers(lib, config, size, classes):
    options = {"embed_dim": config.width, "depths": list(config.depths), "num_heads": list(config.heads), "drop_path_rate": 0}
    made = lib.transformers.Swinv2Config(image_size=size, window_size=config.windows[0], num_labels=classes, **options)
    return lib.transformers.Swinv2ForImageClassification(made)


def _hugging(lib):
    blocks = {f"stage{i}": f"swinv2.encoder.layers.{i - 1}.blocks.{depth - 1}" for i, depth in enumerate(DEPTHS, start=1)}
    network = _transformers(lib, CONFIG, SIZE, CLASSES)
    return maps(lib, network, {"stem": "swinv2.embeddings", **blocks, "neck": "swinv2.layernorm"})


def _case(convention, theirs, stages):
    return Case(f"swinv2_{convention}", swin.architecture(CONFIG), convention, theirs, stages, size=SIZE, channels_last=True)


CASES = (
    _case("timm", _timm, TIMM),
    _case("transformers", _hugging, {stage: stage for stage in TIMM}),
)
