"""The seeded weights and inputs of `jaxft.verify`, and what is kept of tensors in fixtures.

Names are torchvision's or timm's, layouts torch's. Nothing big is stored: both sides make the weights, the fixture holds what
torch computed with them.
"""

import numpy as np

from jaxft.verify.seeded import generator, images, labels, state_dict, tensor

__all__ = ["assert_digest", "digest", "generator", "images", "labels", "state_dict", "tensor", "trained_state_dict"]

SAMPLES = 96


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
