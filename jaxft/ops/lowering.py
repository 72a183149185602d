"""Which of several equal lowerings is compiled: XLA's own on accelerators, the cheaper form on the CPU.

XLA's CPU backend runs some convolutions and pooling gradients many times slower than the same arithmetic written otherwise.
The choice is made when a program is lowered, by the platform it is lowered for, so that compiling for an accelerator from a
machine without one gets what the accelerator should run. `JAXFT_OPS` forces one form: `xla` or `cpu`; `auto` is the default.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from jax import lax

from jaxft.errors import JaxftError

_CHOICES = ("auto", "xla", "cpu")


def forced() -> str:
    """The value of `JAXFT_OPS`, read when a program is traced."""
    choice = os.environ.get("JAXFT_OPS", "auto")
    if choice not in _CHOICES:
        raise JaxftError(f"JAXFT_OPS is '{choice}', not one of {', '.join(_CHOICES)}")
    return choice


def by_platform(*args: Any, cpu: Callable[..., Any], xla: Callable[..., Any]) -> Any:
    """`cpu(*args)` where the program is lowered for the CPU, `xla(*args)` elsewhere; both give the same values.

    Never differentiate through this: call it inside the two halves of a `jax.custom_vjp`.
    """
    choice = forced()
    if choice == "cpu":
        return cpu(*args)
    if choice == "xla":
        return xla(*args)
    return lax.platform_dependent(*args, cpu=cpu, default=xla)
