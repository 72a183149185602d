"""Convolution, NHWC with HWIO kernels: one meaning, and the table of the forms it is compiled to on the CPU."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax

from jaxft.errors import JaxftError
from jaxft.ops import forms, winograd
from jaxft.ops.geometry import Geometry, Pads, Pair, pair, resolve_padding
from jaxft.ops.lowering import by_platform, forced

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Form:
    """A way to compute a convolution.

    Attributes:
      can: whether it computes this one: `(x.shape, kernel.shape, geometry)`.
      wins: whether it is faster than XLA's own on a CPU, where it can.
      why: in a few words, with what was measured.
      forward, input_gradient, kernel_gradient: see `jaxft.ops.forms`.
    """

    can: Callable[[Shape, Shape, Geometry], bool]
    wins: Callable[[Shape, Shape, Geometry], bool]
    why: str
    forward: Callable[..., jax.Array]
    input_gradient: Callable[..., jax.Array]
    kernel_gradient: Callable[..., jax.Array]


def _plain(geometry: Geometry, strides: bool = False) -> bool:
    return geometry.groups == 1 and geometry.dilation == (1, 1) and (strides or geometry.strides == (1, 1))


def _three(x: Shape, kernel: Shape, geometry: Geometry) -> bool:
    return kernel[:2] == (3, 3) and _plain(geometry) and max(sum(geometry.pads, ())) <= 2 and min(_out(x, geometry)) >= 1


def _worth(x: Shape, kernel: Shape) -> bool:
    """Whether the arithmetic, above 100 MFLOP, is worth a program that takes longer to compile."""
    return min(kernel[2:]) >= 64 and 2 * math.prod(x[:3]) * math.prod(kernel) >= 1e8


def _out(x: Shape, geometry: Geometry) -> Pair:
    (top, bottom), (left, right) = geometry.pads
    return x[1] + top + bottom - 2, x[2] + left + right - 2


#: The first form that can and wins is compiled on the CPU; if none does, and on every other platform, XLA's own convolution.
FORMS: dict[str, Form] = {
    "depthwise": Form(
        can=lambda x, kernel, geometry: geometry.groups == x[3] == kernel[3] and geometry.dilation == (1, 1),
        wins=lambda x, kernel, geometry: geometry.groups > 1,
        why="XLA's CPU backend loops over single channels: shifted multiply-adds are 4 to 150 times faster",
        forward=forms.depthwise,
        input_gradient=forms.depthwise_input_gradient,
        kernel_gradient=forms.depthwise_kernel_gradient,
    ),
    "grouped": Form(
        can=lambda x, kernel, geometry: geometry.groups > 1,
        wins=lambda x, kernel, geometry: True,
        why="XLA's CPU backend loops over groups; dense convolutions of several groups at once are many times faster",
        forward=forms.grouped,
        input_gradient=forms.grouped_input_gradient,
        kernel_gradient=forms.grouped_kernel_gradient,
    ),
    "pointwise": Form(
        can=lambda x, kernel, geometry: (
            kernel[:2] == (1, 1) and _plain(geometry, strides=True) and geometry.pads == ((0, 0), (0, 0))
        ),
        wins=lambda x, kernel, geometry: True,
        why="a matrix product over pixels, 1.2 to 1.6 times faster than its convolution",
        forward=forms.pointwise,
        input_gradient=forms.pointwise_input_gradient,
        kernel_gradient=forms.pointwise_kernel_gradient,
    ),
    "tiled": Form(
        can=lambda x, kernel, geometry: (
            _plain(geometry, strides=True)
            and geometry.pads == ((0, 0), (0, 0))
            and kernel[:2] == geometry.strides
            and all(size % k == 0 for size, k in zip(x[1:3], kernel[:2], strict=True))
        ),
        wins=lambda x, kernel, geometry: True,
        why="windows that cut a map into tiles, as a ViT's patches: a matrix product that copies each pixel once",
        forward=forms.tiled,
        input_gradient=forms.tiled_input_gradient,
        kernel_gradient=forms.tiled_kernel_gradient,
    ),
    "patched": Form(
        can=lambda x, kernel, geometry: _plain(geometry, strides=True),
        wins=lambda x, kernel, geometry: (
            any(size < k for size, k in zip(x[1:3], kernel[:2], strict=True))
            or (max(kernel[:2]) == 3 and geometry.strides == (2, 2) and math.prod(x[:3]) <= 4 * min(kernel[2:]))
        ),
        why="a kernel larger than its map falls to a naive loop, 30 times slower than a matrix product over patches; where a "
        "strided kernel outweighs its map, XLA's loses a fifth forward and 1.7 times in the input's gradient",
        forward=forms.patched,
        input_gradient=forms.patched_input_gradient,
        kernel_gradient=forms.patched_kernel_gradient,
    ),
    "patched_forward": Form(
        can=lambda x, kernel, geometry: _plain(geometry, strides=True),
        wins=lambda x, kernel, geometry: max(geometry.strides) > 1 and math.prod(kernel[:3]) <= 32,
        why="a strided first layer on three channels: forward twice as fast, gradients not",
        forward=forms.patched,
        input_gradient=forms.xla_input_gradient,
        kernel_gradient=forms.xla_kernel_gradient,
    ),
    "winograd": Form(
        can=_three,
        wins=lambda x, kernel, geometry: _worth(x, kernel) and x[2] <= 128,
        why="half the multiplications: up to 1.9 times faster forward and for the input, up to 3 times for the kernel",
        forward=winograd.conv3x3,
        input_gradient=winograd.input_gradient,
        kernel_gradient=winograd.kernel_gradient,
    ),
    "winograd_kernel_gradient": Form(
        can=_three,
        wins=lambda x, kernel, geometry: _worth(x, kernel),
        why="on wide maps XLA's forward pass is as fast as the cores, its kernel gradient 3 to 6 times slower",
        forward=forms.xla_conv,
        input_gradient=forms.xla_input_gradient,
        kernel_gradient=winograd.kernel_gradient,
    ),
}


def conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: int | Pair = 1,
    padding: int | str | Pads = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    lowering: str | None = None,
) -> jax.Array:
    """2-D convolution (cross-correlation, as torch).

    Reverse-mode differentiation only, unless `lowering` is "xla": the other forms carry gradients of their own.

    Args:
      x: [B, H, W, C].
      kernel: [h, w, C / groups, O], of x's dtype.
      strides, dilation: one number or (height, width).
      padding: zeros on each side: one number, "SAME" (as TensorFlow), or ((top, bottom), (left, right)).
      groups: feature groups; `groups == C` is a depthwise convolution.
      lowering: None takes what `JAXFT_OPS` says; "auto", "xla", "cpu" (see `jaxft.ops.lowering`), or a name of `FORMS`, which
        is then compiled on every platform.

    Returns:
      [B, H', W', O], of x's dtype.

    Raises:
      JaxftError: shapes or options that do not fit.
    """
    strides, dilation = pair(strides), pair(dilation)
    pads = resolve_padding(padding, x.shape[1:3], kernel.shape[:2], strides, dilation)
    geometry = Geometry(strides, pads, dilation, groups)
    channels = x.shape[-1]
    if channels != kernel.shape[2] * groups:
        raise JaxftError(
            f"a kernel {list(kernel.shape)} with groups={groups} takes {kernel.shape[2] * groups} channels, not {channels}"
        )
    if lowering in FORMS:
        if not FORMS[lowering].can(x.shape, kernel.shape, geometry):
            raise JaxftError(f"no '{lowering}' form of a kernel {list(kernel.shape)} on {list(x.shape)} with {geometry}")
        return _conv(x, kernel, geometry, lowering, "cpu")
    choice = forced(lowering, FORMS)
    name = None if choice == "xla" else form_of(x, kernel, geometry)
    return forms.xla_conv(x, kernel, geometry) if name is None else _conv(x, kernel, geometry, name, choice)


def form_of(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> str | None:
    """The name of the form that is compiled on the CPU, or None for XLA's own."""
    for name, form in FORMS.items():
        # Winograd's sums of differences lose too many of the 8 bits of a bfloat16.
        narrow = name.startswith("winograd") and x.dtype.itemsize < 4
        if not narrow and form.can(x.shape, kernel.shape, geometry) and form.wins(x.shape, kernel.shape, geometry):
            return name
    return None


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv(x: jax.Array, kernel: jax.Array, geometry: Geometry, name: str, choice: str) -> jax.Array:
    return by_platform(
        x,
        kernel,
        choice=choice,
        cpu=functools.partial(FORMS[name].forward, geometry=geometry),
        xla=functools.partial(forms.xla_conv, geometry=geometry),
    )


def _forward(x: jax.Array, kernel: jax.Array, geometry: Geometry, name: str, choice: str) -> Any:
    return _conv(x, kernel, geometry, name, choice), (x, kernel)


def _backward(geometry: Geometry, name: str, choice: str, saved: Any, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Gradients for input and kernel; the two are separate so that an unused one is never computed."""
    form = FORMS[name]
    pairs = (
        (form.input_gradient, forms.xla_input_gradient),
        (form.kernel_gradient, forms.xla_kernel_gradient),
    )
    found = [
        by_platform(
            *saved,
            grad,
            choice=choice,
            cpu=functools.partial(own, geometry=geometry),
            xla=functools.partial(xla, geometry=geometry),
        )
        for own, xla in pairs
    ]
    return found[0], found[1]


_conv.defvjp(_forward, _backward)
