"""Weights and images as a function of (seed, name, shape), in NumPy: the same for jaxft and for the original network.

Where the published weights cannot be had, a comparison on these shows as much of the code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np


def generator(seed: int, name: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}|{name}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:8], "little")))


def tensor(seed: int, name: str, shape: tuple[int, ...], gain: float = 1.0) -> np.ndarray:
    """One tensor of a torch state dict, or of Keras, f32: kernels He-scaled and times `gain`, scales and variances near one."""
    rng = generator(seed, name)
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith(("running_var", "moving_variance")):
        return rng.uniform(0.8, 1.2, shape).astype(np.float32)
    if name.endswith(("running_mean", "moving_mean")):
        return (rng.standard_normal(shape) * 0.1).astype(np.float32)
    if len(shape) == 1:
        return (rng.standard_normal(shape) * 0.05 + (1.0 if name.endswith("weight") else 0.0)).astype(np.float32)
    inputs = shape[1:]
    if name.endswith(".kernel"):  # Keras': HWIO, or [h, w, C, 1] where it is depthwise
        inputs = shape[:-1] if shape[-1] > 1 else shape[:2]
    fan_in = int(np.prod(inputs))
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(gain * np.sqrt(2.0 / fan_in))


def state_dict(seed: int, shapes: Mapping[str, tuple[int, ...]], gain: float = 1.0) -> dict[str, np.ndarray]:
    """Tensors of these names and shapes, in torch's layouts, or in Keras' where the names are Keras'."""
    found = {name: tensor(seed, name, shape, gain) for name, shape in shapes.items()}
    for name in found:
        layer, _, leaf = name.rpartition(".")
        if leaf == "gamma" and f"{layer}.beta" in found:  # the scale of a normalisation in Keras; elsewhere a layer scale
            found[name] += 1
    return found


def images(seed: int, batch: int, size: int, step: int = 0) -> np.ndarray:
    """f32 [B, size, size, 3], smooth enough to look like pictures: noise on a coarse grid, repeated, and some fine noise."""
    rng = generator(seed, f"images{step}")
    cells = -(-size // 8)
    coarse = rng.standard_normal((batch, cells, cells, 3)).astype(np.float32)
    repeated = np.repeat(np.repeat(coarse, 8, 1), 8, 2)[:, :size, :size]
    return repeated + rng.standard_normal((batch, size, size, 3)).astype(np.float32) * 0.3


def labels(seed: int, batch: int, classes: int, step: int = 0) -> np.ndarray:
    """int32 [B]."""
    return generator(seed, f"labels{step}").integers(0, classes, batch).astype(np.int32)
