"""What the workers on JAX share: the matmul peak, and calls that carry a state."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
from serve import square_matmul


def carrying(step: Callable[[Any], tuple[Any, Any]], carried: Any) -> Callable[[int], float]:
    """A `run` of `step`: carried -> (carried, result), call after call, that waits for the last one's results."""

    def run(calls: int) -> float:
        nonlocal carried
        start = time.perf_counter()
        for _ in range(calls):
            carried, result = step(carried)
        jax.block_until_ready((carried, result))
        return time.perf_counter() - start

    return run


def peak() -> float:
    """FLOP/s of products of two f32 matrices [2048, 2048]."""
    size = 2048
    left, right = (jax.random.normal(key, (size, size)) for key in jax.random.split(jax.random.key(0)))
    multiply = jax.jit(lambda a, b: a @ b)
    return square_matmul(lambda a, b: multiply(a, b).block_until_ready(), left, right, size)
