"""The layers all networks are made of. The only modules besides the networks that know flax.linen.

`train` is handed down everywhere: False, True, or a `Trains` that says by module path what is in train mode.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxft import ops
from jaxft.errors import JaxftError
from jaxft.ops.geometry import Pads, Pair, pair
from jaxft.ops.norm import at_least_f32
from jaxft.typing import Trains

Train = bool | Trains


def he_out(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """He et al. (2015), over the outputs: what torchvision initialises convolutions with.

    The numbers of `nn.initializers.variance_scaling(2.0, "fan_out", "normal")` but for rounding, drawn along one axis: XLA's
    CPU backend unrolls the loops over a kernel's pixels (measured: `init` compiles 1.6 times faster of EfficientNet-Lite0, 1.8
    of ResNet-50, 14 of a tiny VGG).
    """
    fan_out = math.prod(shape) // shape[-2]
    drawn = jax.random.normal(key, (math.prod(shape),), dtype) * jnp.sqrt(jnp.asarray(2 / fan_out, dtype))
    return drawn.reshape(shape)


#: torch's default for dense layers is close to this one.
lecun = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")


def training(train: Train, path: str) -> bool:
    """Whether the module at '/' path `path` is in train mode."""
    return train(path) if isinstance(train, Trains) else train


def running(stages: Iterable[str], start: str) -> list[str]:
    """The stages that run: those from `start` on, all where it is ""."""
    names = list(stages)
    return names[names.index(start) if start else 0 :]


def recomputed(part: Any, remat: bool) -> Any:
    """A module class (or a function of a module) called with (x, train): with `remat`, one that keeps only its input for the
    backward pass and computes the rest again there (`jax.checkpoint`; Chen et al., 2016). Names and values stay."""
    return nn.remat(part, static_argnums=(2,)) if remat else part


def path_of(module: nn.Module) -> str:
    """A module's own '/' path."""
    return "/".join(module.path)


class Conv(nn.Module):
    """Convolution: `kernel` [h, w, C / groups, O], `bias` [O]. Parameters are f32, computing is in `dtype`."""

    features: int
    kernel_size: int | Pair
    strides: int = 1
    padding: int | str | Pads = 0
    groups: int = 1
    bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (*pair(self.kernel_size), x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", he_out, shape)
        y = ops.conv(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            strides=self.strides,
            padding=self.padding,
            groups=self.groups,
        )
        if self.bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return y


@dataclasses.dataclass(frozen=True)
class Norm:
    """What tells the BatchNorms of libraries apart; see `BatchNorm`."""

    epsilon: float = 1e-5
    momentum: float = 0.1
    unbiased: bool = True
    scaled: bool = True

    def __call__(self, dtype: Any, name: str) -> BatchNorm:
        return BatchNorm(self.momentum, self.epsilon, self.unbiased, self.scaled, dtype=dtype, name=name)


TORCH_NORM, INCEPTION_NORM = Norm(), Norm(1e-3)
#: Of the residual and dense networks of keras.applications.
KERAS_NORM = Norm(1.001e-5, 0.01, unbiased=False)


class ConvNormAct(nn.Module):
    """Convolution without bias, BatchNorm (`norm`, with epsilon 1e-3), ReLU: what Inception networks are made of."""

    features: int
    kernel_size: int | Pair
    strides: int = 1
    padding: int | Pads = 0
    norm: Norm = INCEPTION_NORM
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        conv = Conv(self.features, self.kernel_size, self.strides, self.padding, bias=False, dtype=self.dtype, name="conv")
        return nn.relu(self.norm(self.dtype, "bn")(conv(x), train))


class BatchNorm(nn.Module):
    """Batch normalisation over all but the last axis, with torch's meaning.

    In train mode the batch is normalised with its biased variance, while the running variance takes the unbiased one,
    N / (N - 1) larger, as torch does. The statistics, `mean` and `var` in the collection `batch_stats`, are never narrower
    than f32. They are those of the whole batch, over all devices, unless a `Trains` says otherwise. A frozen one (see `Trains`)
    uses its running statistics and leaves them alone.

    Attributes:
      momentum: torch's: the weight of the NEW value; 0.1 is flax's 0.9.
      epsilon: added to the variance.
      unbiased: whether the running variance takes the unbiased one; in Keras 3 it takes the biased one.
      scaled: whether there is a scale.
    """

    momentum: float = 0.1
    epsilon: float = 1e-5
    unbiased: bool = True
    scaled: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        features = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (features,)) if self.scaled else jnp.ones((features,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (features,))
        mean = self.variable("batch_stats", "mean", jnp.zeros, (features,), jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, (features,), jnp.float32)
        if training(train, path_of(self)) and not self.is_initializing():
            parts, axis = (train.norm_parts, train.norm_axis) if isinstance(train, Trains) else (1, "")
            y, batch_mean, batch_var = ops.batch_norm(x, scale, bias, self.epsilon, parts=parts, axis=axis)
            count = x.size // features // parts * (jax.lax.axis_size(axis) if axis else 1)
            new_var = batch_var * (count / max(count - 1, 1)) if self.unbiased else batch_var
            mean.value = (1 - self.momentum) * mean.value + self.momentum * jax.lax.stop_gradient(batch_mean)
            var.value = (1 - self.momentum) * var.value + self.momentum * jax.lax.stop_gradient(new_var)
            return y.astype(self.dtype)
        factor = scale * jax.lax.rsqrt(var.value + self.epsilon)
        return (x * factor + (bias - mean.value * factor)).astype(self.dtype)


class LayerNorm(nn.Module):
    """Layer normalisation (Ba et al., 2016) over the last axis, with the biased variance; statistics in f32 or wider."""

    epsilon: float = 1e-6
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        return ops.layer_norm(x, scale, bias, self.epsilon).astype(self.dtype)


class GroupNorm(nn.Module):
    """Group normalisation (Wu & He, 2018): of each example over all pixels and the channels of one of `groups` groups, with the
    biased variance; statistics in f32 or wider."""

    groups: int = 32
    epsilon: float = 1e-5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        features = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (features,))
        bias = self.param("bias", nn.initializers.zeros, (features,))
        grouped = at_least_f32(x).reshape(x.shape[0], -1, self.groups, features // self.groups)
        centred = grouped - grouped.mean((1, 3), keepdims=True)
        inverse = jax.lax.rsqrt(jnp.square(centred).mean((1, 3), keepdims=True) + self.epsilon)
        return ((centred * inverse).reshape(x.shape) * scale + bias).astype(self.dtype)


def gelu(x: jax.Array) -> jax.Array:
    """The exact GELU (Hendrycks & Gimpel, 2016), x / 2 (1 + erf(x / sqrt 2)), as torch computes it."""
    return 0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5)))


def relu6(x: jax.Array) -> jax.Array:
    return jnp.clip(x, 0, 6)


def round_channels(channels: float, divisor: int = 8, least: float = 0.9) -> int:
    """The nearest multiple of `divisor`, but not less than `least` of what was asked for (Howard et al., 2017)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < least * channels else rounded


def rising_rates(rate: float, depths: Iterable[int]) -> list[tuple[float, ...]]:
    """Stochastic depth's rate for each block of each stage: a line from 0 at the first block to `rate` at the last."""
    depths = list(depths)
    last, blocks = max(sum(depths) - 1, 1), iter(range(sum(depths)))
    return [tuple(rate * next(blocks) / last for _ in range(depth)) for depth in depths]


class SqueezeExcite(nn.Module):
    """Squeeze and excitation (Hu et al., 2018): scales the channels of a map by what its means say.

    Attributes:
      reduced: channels of the inner layer.
      activation, gate: after the first and the second 1x1 convolution.
      names: of the two.
    """

    reduced: int
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    gate: Callable[[jax.Array], jax.Array] = nn.sigmoid
    names: tuple[str, str] = ("fc1", "fc2")
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        first, second = self.names
        mean = ops.global_avg_pool(x)[:, None, None, :]
        inner = self.activation(Conv(self.reduced, 1, dtype=self.dtype, name=first)(mean))
        return x * self.gate(Conv(x.shape[-1], 1, dtype=self.dtype, name=second)(inner))


class Dense(nn.Module):
    """A dense layer on [..., D]: `kernel` [D, O], `bias` [O]."""

    features: int
    bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", lecun, (x.shape[-1], self.features))
        # As rows: the kernel gradient of a product in more dimensions comes out transposed, and on the CPU its transposes, into
        # which whole chains of residual sums are fused, cost a ViT a fifth of its training step.
        rows = x.astype(self.dtype).reshape(-1, x.shape[-1]) @ kernel.astype(self.dtype)
        if self.bias:
            rows = rows + self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return rows.reshape(*x.shape[:-1], self.features)


class FlattenDense(nn.Module):
    """A dense layer over a flattened map [B, size, size, C] to which its input is first pooled.

    The pooling is torch's AdaptiveAvgPool2d. On a 1x1 map it would repeat one pixel `size * size` times: there the kernel is
    summed over its positions instead, which is the same function for a fraction of the work.
    """

    features: int
    size: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        kernel = self.param("kernel", lecun, (self.size * self.size * channels, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        if (height, width) == (1, 1):
            # As a product with ones: XLA's CPU backend takes 50 times longer to sum over so few, so distant rows.
            ones = jnp.ones((self.size * self.size,), kernel.dtype)
            rows = kernel.reshape(ones.size, channels * self.features)
            kernel = jnp.dot(ones, rows, precision=jax.lax.Precision.HIGHEST).reshape(channels, self.features)
        else:
            x = ops.adaptive_avg_pool(x, (self.size, self.size))
        return x.reshape(batch, -1).astype(self.dtype) @ kernel.astype(self.dtype) + bias.astype(self.dtype)


class Dropout(nn.Module):
    """Dropout (Srivastava et al., 2014) in front of the layer at '/' path `of`: it is on where that layer trains."""

    rate: float
    of: str

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        if self.rate == 0.0 or not training(train, self.of):
            return x
        keep = jax.random.bernoulli(random_key(self), 1 - self.rate, x.shape)
        return jnp.where(keep, x / (1 - self.rate), jnp.zeros((), x.dtype))


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., 2016): drops a residual branch of whole examples. `of` is its block's '/' path."""

    rate: float
    of: str

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        if self.rate == 0.0 or not training(train, self.of):
            return x
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        keep = jax.random.bernoulli(random_key(self), 1 - self.rate, shape)
        return jnp.where(keep, x / (1 - self.rate), jnp.zeros((), x.dtype))


def random_key(module: nn.Module) -> jax.Array:
    """The key of a module that is random in train mode."""
    if not module.has_rng("dropout"):
        raise JaxftError(f"{path_of(module)} is random in train mode: apply needs rng=, a key")
    return module.make_rng("dropout")
