"""What the workers on JAX share: the matmul peak, and calls that carry a state."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
from serve import matmul_peak


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
    """FLOP/s of the fastest f32 matrix product."""

    def multiply(size: int) -> Callable[[], Any]:
        left, right = (jax.random.normal(key, (size, size)) for key in jax.random.split(jax.random.key(0)))
        compiled = jax.jit(lambda a, b: a @ b)
        return lambda: compiled(left, right).block_until_ready()

    return matmul_peak(multiply)
