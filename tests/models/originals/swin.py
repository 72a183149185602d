"""Swin Transformer."""

from jaxft.models import swin
from originals import CLASSES, Case

WIDTH, DEPTHS, HEADS = 8, (2, 1, 1, 2), (1, 2, 2, 4)
TIMM = {"stem": "patch_embed", **{f"stage{i}": f"layers.{i - 1}" for i in range(1, 5)}, "neck": "norm"}
TORCHVISION = {"stem": "features.0", **{f"stage{i}": f"features.{2 * i - 1}" for i in range(1, 5)}, "neck": "norm"}


def maps(lib, network, blocks):
    """Makes of Hugging Face's lists of tokens, which `blocks` give, maps [B, side, side, C]: outputs of new submodules."""
    for stage, block in blocks.items():
        network.add_module(stage, lib.torch.nn.Identity())

        def show(module, inputs, output, stage=stage):
            tokens = output if isinstance(output, lib.torch.Tensor) else output[0]
            network.get_submodule(stage)(tokens.unflatten(1, (round(tokens.shape[1] ** 0.5), -1)))

        network.get_submodule(block).register_forward_hook(show)
    return network


def without_buffers(network, *names):
    """Leaves buffers that follow from a window's size out of the state dict: seeded values would be wrong ones."""
    for module in network.modules():
        module._non_persistent_buffers_set |= {name for name in names if name in module._buffers}
    return network


def _timm(lib):
    options = {"img_size": 96, "embed_dim": WIDTH, "depths": DEPTHS, "num_heads": HEADS, "window_size": 3, "drop_path_rate": 0}
    return lib.timm.create_model("swin_tiny_patch4_window7_224", num_classes=CLASSES, **options)


def _torchvision(lib):
    shape = {"embed_dim": WIDTH, "depths": list(DEPTHS), "num_heads": list(HEADS), "window_size": [4, 4]}
    network = lib.torchvision.models.swin_transformer.SwinTransformer(
        [4, 4], num_classes=CLASSES, stochastic_depth_prob=0, **shape
    )
    return without_buffers(network, "relative_position_index")


def _transformers(lib, config, size, classes):
    options = {"embed_dim": config.width, "depths": list(config.depths), "num_heads": list(config.heads), "drop_path_rate": 0}
    made = lib.transformers.SwinConfig(image_size=size, window_size=config.windows[0], num_labels=classes, **options)
    return lib.transformers.SwinForImageClassification(made)


def _case(name, theirs, stages, convention, window, size):
    architecture = swin.architecture(swin.Config(WIDTH, DEPTHS, HEADS, (window,) * 4))
    return Case(f"swin_{name}", architecture, convention, theirs, stages, size=size, channels_last=True)


def _hugging(lib):
    blocks = {f"stage{i}": f"swin.encoder.layers.{i - 1}.blocks.{depth - 1}" for i, depth in enumerate(DEPTHS, start=1)}
    network = _transformers(lib, swin.Config(WIDTH, DEPTHS, HEADS, (3,) * 4), 96, CLASSES)
    return maps(lib, network, {"stem": "swin.embeddings", **blocks, "neck": "swin.layernorm"})


CASES = (
    # Maps of 24, 12, 6 and 3: whole windows, the last one not shifted.
    _case("timm", _timm, TIMM, "timm", 3, 96),
    # Maps of 18, 9, 5 and 3: padded to whole windows and, before they are halved, to even sides.
    _case("torchvision", _torchvision, TORCHVISION, "torchvision", 4, 72),
    _case("transformers", _hugging, {stage: stage for stage in TIMM}, "transformers", 3, 96),
)
