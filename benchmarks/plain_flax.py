"""Networks of the comparison as one writes them in plain Flax: its own convolution, pooling and BatchNorm, nothing else.

They have the layers and the parameters of jaxft's networks of the same names. Each takes images f32 [B, H, W, C] and `train`;
the last dense layer is called `head`, so that it can be trained alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array


class VGG16(nn.Module):
    """Simonyan & Zisserman (2015), with torchvision's classifier."""

    classes: int
    batch_norm: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(count):
                x = nn.Conv(width, (3, 3))(x)
                if self.batch_norm:
                    x = nn.BatchNorm(not train)(x)
                x = nn.relu(x)
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        if x.shape[1:3] == (1, 1):  # torchvision's adaptive pooling to 7x7
            x = jnp.tile(x, (1, 7, 7, 1))
        x = nn.relu(nn.Dense(4096)(x.reshape(x.shape[0], -1)))
        x = nn.relu(nn.Dense(4096)(nn.Dropout(0.5, deterministic=not train)(x)))
        return nn.Dense(self.classes, name="head")(nn.Dropout(0.5, deterministic=not train)(x))


class ResNet50(nn.Module):
    """He et al. (2016), with the stride in the 3x3 convolution, as torchvision has it."""

    classes: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        conv = functools.partial(nn.Conv, use_bias=False)
        norm = functools.partial(nn.BatchNorm, use_running_average=not train)
        x = nn.relu(norm()(conv(64, (7, 7), 2, padding=3)(x)))
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for stage, count in enumerate((3, 4, 6, 3)):
            width = 64 * 2**stage
            for number in range(count):
                strides, shortcut = (2 if stage and not number else 1), x
                x = nn.relu(norm()(conv(width, (1, 1))(x)))
                x = nn.relu(norm()(conv(width, (3, 3), strides, padding=1)(x)))
                x = norm(scale_init=nn.initializers.zeros)(conv(4 * width, (1, 1))(x))
                if not number:
                    shortcut = norm()(conv(4 * width, (1, 1), strides)(shortcut))
                x = nn.relu(x + shortcut)
        return nn.Dense(self.classes, name="head")(x.mean((1, 2)))


class EfficientNetLite0(nn.Module):
    """Tan & Le (2019), the Lite variant: (blocks, kernel, stride, expansion, channels) of each stage."""

    classes: int
    stages: tuple[tuple[int, int, int, int, int], ...] = (
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    )

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        conv = functools.partial(nn.Conv, use_bias=False)
        norm = functools.partial(nn.BatchNorm, use_running_average=not train, epsilon=1e-3)
        x = nn.relu6(norm()(conv(32, (3, 3), 2)(x)))
        for count, kernel, first, expansion, channels in self.stages:
            for number in range(count):
                strides, shortcut, wide = (1 if number else first), x, x.shape[-1] * expansion
                if expansion > 1:
                    x = nn.relu6(norm()(conv(wide, (1, 1))(x)))
                x = nn.relu6(norm()(conv(wide, (kernel, kernel), strides, feature_group_count=wide)(x)))
                x = norm()(conv(channels, (1, 1))(x))
                if shortcut.shape == x.shape:
                    x = x + shortcut
        x = nn.relu6(norm()(conv(1280, (1, 1))(x))).mean((1, 2))
        return nn.Dense(self.classes, name="head")(nn.Dropout(0.2, deterministic=not train)(x))


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "vgg16": VGG16,
    "vgg16_bn": functools.partial(VGG16, batch_norm=True),
    "resnet50": ResNet50,
    "efficientnet_lite0": EfficientNetLite0,
}
