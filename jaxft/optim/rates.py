"""The learning rate where none is given: by optimizer, family of networks, and what trains."""

from __future__ import annotations

from typing import NamedTuple

from jaxft.errors import JaxftError


class Rates(NamedTuple):
    """Rates for a family, with the source they follow.

    Attributes:
      optimizer: the pretraining's kind, "sgd" or "adam".
      pretraining: its peak rate, at the batch of the recipe.
      sgd, adam: peak rates for fine-tuning the whole network with SGD with momentum, with Adam or AdamW.
      source: where the pretraining's rate, and that of fine-tuning, stand.
    """

    optimizer: str
    pretraining: float
    sgd: float
    adam: float
    source: str


_TORCHVISION = "torchvision references/classification"

#: Fine-tuning starts one to two orders of magnitude under the pretraining's rate.
FAMILIES = {
    "alexnet": Rates("sgd", 0.01, 1e-3, 1e-5, f"{_TORCHVISION}: AlexNet, lr 0.01 at batch 256"),
    "vgg": Rates("sgd", 0.01, 1e-3, 1e-5, f"{_TORCHVISION}: VGG, lr 0.01 at batch 256"),
    "squeezenet": Rates("sgd", 0.04, 1e-3, 1e-5, "Iandola et al., 2016: lr 0.04 at batch 512"),
    "googlenet": Rates("sgd", 0.1, 1e-2, 1e-4, f"as resnet; {_TORCHVISION} has no recipe of its weights"),
    "inception_v3": Rates("sgd", 0.1, 1e-2, 1e-4, f"as resnet; {_TORCHVISION} has no recipe of its weights"),
    "resnet": Rates("sgd", 0.1, 1e-2, 1e-4, f"{_TORCHVISION}: ResNet, lr 0.1 at batch 256; Kornblith et al., 2019: 0.01"),
    "resnetv2": Rates("sgd", 0.03, 3e-3, 1e-4, "Kolesnikov et al., 2020 (BiT): lr 0.03 at 256; its HyperRule: 0.003 at 512"),
    "densenet": Rates("sgd", 0.1, 1e-2, 1e-4, "Huang et al., 2017: lr 0.1 at batch 256"),
    "regnet": Rates("sgd", 0.8, 1e-2, 1e-4, f"{_TORCHVISION}: RegNet, lr 0.8 at batch 1024"),
    "mobilenetv2": Rates("sgd", 0.045, 4e-3, 1e-4, f"{_TORCHVISION}: MobileNetV2, lr 0.045 at batch 256"),
    "mobilenetv3": Rates("sgd", 0.064, 5e-3, 1e-4, f"{_TORCHVISION}: MobileNetV3, RMSProp, lr 0.064 at batch 1024"),
    "mnasnet": Rates("sgd", 0.5, 1e-2, 1e-4, f"{_TORCHVISION}: MNASNet 0.75 and 1.3, lr 0.5 at batch 1024"),
    "efficientnet_lite": Rates("sgd", 0.5, 1e-2, 1e-4, "as efficientnetv2"),
    "efficientnet": Rates("sgd", 0.5, 1e-2, 1e-4, "as efficientnetv2; Tan & Le, 2019: RMSProp, lr 0.256 at batch 4096"),
    "efficientnetv2": Rates("sgd", 0.5, 1e-2, 1e-4, f"{_TORCHVISION}: EfficientNetV2, lr 0.5 at batch 1024"),
    "convnext": Rates("adam", 4e-3, 5e-3, 5e-5, "Liu et al., 2022: AdamW, 4e-3 at batch 4096; fine-tuning 5e-5 at 512"),
    "vit": Rates("adam", 1e-3, 3e-3, 5e-5, "Dosovitskiy et al., 2021: Adam, 1e-3 at 4096; fine-tuning SGD, 0.003 and up"),
    "deit": Rates("adam", 5e-4, 3e-3, 5e-5, "Touvron et al., 2021: AdamW, 5e-4 at batch 512"),
    "mixer": Rates("adam", 1e-3, 3e-3, 5e-5, "Tolstikhin et al., 2021: Adam, 1e-3 at 4096; fine-tuning SGD, 0.003 and up"),
    "swin": Rates("adam", 1e-3, 2e-3, 2e-5, "Liu et al., 2021: AdamW, 1e-3 at batch 1024; fine-tuning 2e-5 at 1024"),
    "swinv2": Rates("adam", 1e-3, 2e-3, 2e-5, "as swin"),
    "dinov2": Rates("adam", 1e-3, 2e-3, 2e-5, "Oquab et al., 2023: AdamW, 1e-3 at batch 2048 and up"),
    "dinov3": Rates("adam", 4e-4, 2e-3, 2e-5, "Simeoni et al., 2025: AdamW, 4e-4 at batch 4096"),
    "clip": Rates("adam", 5e-4, 1e-3, 1e-5, "Radford et al., 2021: Adam, 5e-4 at 32768; Wortsman et al., 2022: 1e-5 to 3e-5"),
    "siglip": Rates("adam", 1e-3, 1e-3, 1e-5, "Zhai et al., 2023: 1e-3 at batch 32768"),
}  # fmt: skip

#: A network of somebody's own: with care.
OTHER = Rates("adam", 1e-3, 2e-3, 2e-5, "none")

#: optimizer -> (whose column, times what).
OPTIMIZERS = {
    "sgd": ("sgd", 1.0),
    "adam": ("adam", 1.0),
    "adamw": ("adam", 1.0),
    "nadam": ("adam", 1.0),
    "nadamw": ("adam", 1.0),
    "adamax": ("adam", 2.0),  # Kingma & Ba, 2015: 0.002 where Adam has 0.001
    "rmsprop": ("adam", 1.0),
    "lamb": ("adam", 5.0),  # You et al., 2020, and timm's ResNet recipes (Wightman et al., 2021): 5e-3
    "lion": ("adam", 0.2),  # Chen et al., 2023: 3 to 10 times smaller than AdamW's
    "muon": ("adam", 1.0),  # Liu et al., 2025: with updates of AdamW's length
    "adafactor": ("adam", 10.0),  # Shazeer & Stern, 2018: relative to the weights' root mean square
    "schedule_free_sgd": ("sgd", 10.0),  # Defazio et al., 2024: 10 to 50 times SGD's
    "schedule_free_adamw": ("adam", 3.0),  # Defazio et al., 2024: 1 to 10 times AdamW's
}

#: A head alone, and a network that starts from random weights, have nothing to lose.
NEW = 10.0


def default_lr(optimizer: str, family: str, *, new: bool) -> float:
    """The peak rate for fine-tuning, for batches of 32 to 512: a point to start from, not the best one.

    Args:
      optimizer: a key of `OPTIMIZERS`.
      family: a key of `FAMILIES`; another one is treated with care.
      new: only weights that were not pretrained train: the head, or a network without pretrained weights.

    Raises:
      JaxftError: the optimizer has no usual rate.
    """
    if optimizer not in OPTIMIZERS:
        raise JaxftError(f"optimizer '{optimizer}' has no usual learning rate: set lr")
    column, times = OPTIMIZERS[optimizer]
    rates = FAMILIES.get(family, OTHER)
    return float(f"{(rates.sgd if column == 'sgd' else rates.adam) * times * (NEW if new else 1.0):.6g}")
