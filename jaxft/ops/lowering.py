"""Which of several equal lowerings is compiled: XLA's own on accelerators, the cheaper form on the CPU.

XLA's CPU backend runs some convolutions and pooling gradients many times slower than the same arithmetic written otherwise.
The choice is made when a program is lowered, by the platform it is lowered for, so that compiling for an accelerator from a
machine without one gets what the accelerator should run. `JAXFT_OPS` forces one form: `xla` or `cpu`; `auto` is the default.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator
from typing import Any

from jax import lax

from jaxft.errors import JaxftError, near

_CHOICES = ("auto", "xla", "cpu")


def forced(lowering: str | None = None, more: Collection[str] = ()) -> str:
    """`lowering`, or where it is None the value of `JAXFT_OPS`, read when a program is traced: "auto", "xla" or "cpu".

    Raises:
      JaxftError: another value; `more` are names that the caller knows besides.
    """
    choice = os.environ.get("JAXFT_OPS", "auto") if lowering is None else lowering
    if choice not in _CHOICES:
        where, known = ("JAXFT_OPS", _CHOICES) if lowering is None else ("lowering", (*_CHOICES, *more))
        raise JaxftError(f"{where} is '{choice}'{near(choice, known)}, not one of {', '.join(known)}")
    return choice


def by_platform(*args: Any, choice: str, cpu: Callable[..., Any], xla: Callable[..., Any]) -> Any:
    """`cpu(*args)` where the program is lowered for the CPU, `xla(*args)` elsewhere; both give the same values.

    Never differentiate through this: call it inside the two halves of a `jax.custom_vjp`.

    Args:
      choice: "auto", or "cpu" or "xla" for one of the two on every platform.
    """
    if choice == "cpu":
        return cpu(*args)
    if choice == "xla":
        return xla(*args)
    return lax.platform_dependent(*args, cpu=cpu, default=xla)


@contextlib.contextmanager
def plain_ops() -> Iterator[None]:
    """What is traced inside has XLA's own convolutions and pooling: the mathematics, not a lowering of it."""
    before = os.environ.get("JAXFT_OPS")
    os.environ["JAXFT_OPS"] = "xla"
    try:
        yield
    finally:
        if before is None:
            del os.environ["JAXFT_OPS"]
        else:
            os.environ["JAXFT_OPS"] = before
