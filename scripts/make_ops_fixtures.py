"""Writes tests/ops/fixtures/pool.npz: poolings and their gradients as torch computes them.

Needs torch, in an environment of its own:  python scripts/make_ops_fixtures.py
"""

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

MAX = [(2, 2, 0, 0), (3, 2, 1, 0), (3, 2, 0, 1), (3, 2, 1, 1), (2, 2, 0, 1), (3, 1, 1, 0)]
AVG = [(2, 2, 0, 1, 0), (3, 1, 1, 1, 0), (3, 2, 1, 0, 0), (3, 2, 1, 1, 1), (3, 2, 1, 0, 1), (2, 2, 0, 1, 1)]
ADAPTIVE = [(7, 7), (1, 1), (2, 3), (5, 4)]


def main() -> None:
    torch.manual_seed(0)
    found = {}

    def record(name, pool, shape, *window, **options):
        x = torch.randn(shape, requires_grad=True)
        y = pool(x, *window, **options)
        cotangent = torch.randn_like(y)
        y.backward(cotangent)
        for part, value in (("x", x), ("y", y), ("cotangent", cotangent), ("dx", x.grad)):
            found[f"{name}|{part}"] = value.detach().permute(0, 2, 3, 1).numpy()

    for window, stride, padding, ceil in MAX:
        name = f"max_{window}_{stride}_{padding}_{ceil}"
        record(name, functional.max_pool2d, (2, 2, 6, 7), window, stride, padding, ceil_mode=bool(ceil))
    for window, stride, padding, include, ceil in AVG:
        name, modes = f"avg_{window}_{stride}_{padding}_{include}_{ceil}", {"ceil_mode": bool(ceil)}
        modes["count_include_pad"] = bool(include)
        record(name, functional.avg_pool2d, (2, 2, 6, 7), window, stride, padding, **modes)
    for size in ADAPTIVE:
        record(f"adaptive_{size[0]}_{size[1]}", functional.adaptive_avg_pool2d, (2, 2, 3, 5), size)
    path = Path(__file__).parent.parent / "tests" / "ops" / "fixtures" / "pool.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **found)


if __name__ == "__main__":
    main()
