"""Augmentation on the device, under jit: pure functions `(key, image, ...) -> image`, and lists of them.

Images are [H, W, C], uint8 or f32 with values of 0 to 255; `jax.vmap` makes batches of them.
"""

from jaxft.augment.geometry import (
    random_affine,
    random_crop,
    random_flip,
    random_perspective,
    random_resized_crop,
    random_rotation,
    random_scale,
)
from jaxft.augment.mix import cutmix, mixed_batch, mixup, random_label_flip, soft_label
from jaxft.augment.parsing import AUGMENTS, OPERATIONS, parse
from jaxft.augment.pixels import (
    random_autocontrast,
    random_blur,
    random_color,
    random_equalize,
    random_erasing,
    random_grey,
    random_invert,
    random_noise,
    random_posterize,
    random_sharpness,
    random_solarize,
)
from jaxft.augment.policies import aug_mix, rand_augment, trivial_augment
from jaxft.augment.recipe import Augment, Window, example_keys
from jaxft.augment.two_looks import two_looks
from jaxft.augment.warp import warp

__all__ = [
    "AUGMENTS",
    "OPERATIONS",
    "Augment",
    "Window",
    "aug_mix",
    "cutmix",
    "example_keys",
    "mixed_batch",
    "mixup",
    "parse",
    "rand_augment",
    "random_affine",
    "random_autocontrast",
    "random_blur",
    "random_color",
    "random_crop",
    "random_equalize",
    "random_erasing",
    "random_flip",
    "random_grey",
    "random_invert",
    "random_label_flip",
    "random_noise",
    "random_perspective",
    "random_posterize",
    "random_resized_crop",
    "random_rotation",
    "random_scale",
    "random_sharpness",
    "random_solarize",
    "soft_label",
    "trivial_augment",
    "two_looks",
    "warp",
]
