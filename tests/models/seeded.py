"""Weights and inputs as a function of (seed, name, shape), in NumPy: the same in the torch script and in the tests.

Names are torchvision's or timm's, layouts torch's. Nothing big is stored: both sides make the weights, the fixture holds what
torch computed with them.
"""

import hashlib

import numpy as np

SAMPLES = 96


def generator(seed, name):
    digest = hashlib.sha256(f"{seed}|{name}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:8], "little")))


def tensor(seed, name, shape):
    """One tensor of a state dict, f32: He-scaled kernels, scales and variances near one."""
    rng = generator(seed, name)
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_var"):
        return rng.uniform(0.8, 1.2, shape).astype(np.float32)
    if name.endswith("running_mean"):
        return (rng.standard_normal(shape) * 0.1).astype(np.float32)
    if len(shape) == 1:
        return (rng.standard_normal(shape) * 0.05 + (1.0 if name.endswith("weight") else 0.0)).astype(np.float32)
    fan_in = int(np.prod(shape[1:]))
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(np.sqrt(2.0 / fan_in))


def state_dict(seed, shapes):
    return {name: tensor(seed, name, shape) for name, shape in shapes.items()}


def trained_state_dict(seed, shapes):
    """Weights for a curve of many steps: residual branches and the last layer are small, as in trained networks.

    With ordinary random weights rounding grows from step to step, until torch's own float32 and float64 curves differ by
    percents.
    """
    found = state_dict(seed, shapes)
    for name, value in found.items():
        if value.ndim == 2 or (name.startswith("layer") and name.endswith("bn2.weight")):
            found[name] = 0.3 * value
    return found


def images(seed, batch, size, step=0):
    """NHWC f32, smooth enough to look like pictures: noise on a coarse grid, repeated."""
    rng = generator(seed, f"images{step}")
    coarse = rng.standard_normal((batch, size // 8, size // 8, 3)).astype(np.float32)
    return np.repeat(np.repeat(coarse, 8, 1), 8, 2) + rng.standard_normal((batch, size, size, 3)).astype(np.float32) * 0.3


def labels(seed, batch, classes, step=0):
    return generator(seed, f"labels{step}").integers(0, classes, batch).astype(np.int32)


def digest(name, value):
    """What is stored of a tensor: its norm, its sum, and up to SAMPLES seeded entries."""
    flat = np.asarray(value, np.float64).ravel()
    chosen = generator(0, f"digest|{name}").integers(0, flat.size, min(SAMPLES, flat.size))
    return np.concatenate([[np.linalg.norm(flat), flat.sum()], flat[chosen]])


def assert_digest(name, value, expected, tolerance):
    """Equal within `tolerance` of the tensor's own scale: its norm for the norm, its root mean square for entries."""
    found = digest(name, value)
    assert found.shape == expected.shape, name
    count = np.asarray(value).size
    norm = max(expected[0], 1e-12)
    assert abs(found[0] - expected[0]) <= tolerance * norm, f"{name}: norm {found[0]} against {expected[0]}"
    # The error over the sample stands for that over the tensor.
    error = np.linalg.norm(found[2:] - expected[2:]) / np.sqrt(len(expected) - 2)
    scale = max(norm / np.sqrt(count), 1e-12)
    assert error <= tolerance * scale, f"{name}: entries differ by {error / scale:.2e} of their root mean square"
