"""Writes tests/train/fixtures/average.npz: averages of a network's weights and buffers over its steps, by timm and torch.

Needs torch and timm: `python scripts/make_average_fixtures.py`. A small network with BatchNorm is trained for 60 noisy steps;
kept are its weights and buffers after every step, the average after every step for each kind of average, and what
`torch.optim.swa_utils.update_bn` computes for the last SWA average.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch.optim.swa_utils import AveragedModel, update_bn

STEPS = 60
OUT = Path(__file__).parent.parent / "tests" / "train" / "fixtures" / "average.npz"

#: Arguments of ModelEmaV3, and whether it is told the step.
EMAS = {
    "ema": {"decay": 0.9},
    "ema_start": {"decay": 0.8, "update_after_step": 11},
    "ema_warmup": {"decay": 0.95, "use_warmup": True},
    "ema_power": {"decay": 0.9, "use_warmup": True, "warmup_power": 0.75, "warmup_gamma": 3.0, "min_decay": 0.5},
    "ema_late_warmup": {"decay": 0.999, "use_warmup": True, "warmup_power": 1.0, "update_after_step": 7},
}
#: First step whose network is in the mean, and how many steps lie between two.
SWAS = {"swa": (20, 5), "swa_each": (7, 1), "swa_late": (59, 3), "swa_from_the_start": (0, 8)}


def network() -> torch.nn.Module:
    conv, norm, head = torch.nn.Conv2d(1, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Linear(3, 2)
    return torch.nn.Sequential(conv, norm, torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), head)


def vector(model: torch.nn.Module) -> np.ndarray:
    """All weights and statistics as one vector."""
    state = {name: value for name, value in model.state_dict().items() if "num_batches" not in name}
    return np.concatenate([value.numpy().ravel() for value in state.values()])


def main() -> None:
    torch.manual_seed(0)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.5)
    emas = {name: ModelEmaV3(model, **options) for name, options in EMAS.items()}
    swas = {name: AveragedModel(model, use_buffers=True) for name in SWAS}
    for name, (start, _) in SWAS.items():
        if start == 0:
            swas[name].update_parameters(model)
    found: dict[str, list[np.ndarray]] = {name: [] for name in (*EMAS, *SWAS)}
    network_after = [vector(model)]
    for step in range(1, STEPS + 1):
        image, label = torch.randn(8, 1, 6, 6) * (1 + step % 3), torch.randint(0, 2, (8,))
        loss = torch.nn.functional.cross_entropy(model(image), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        network_after.append(vector(model))
        for name, average in emas.items():
            average.update(model, step=step)
            found[name].append(vector(average.module))
        for name, (start, every) in SWAS.items():
            if step >= start and (step - start) % every == 0:
                swas[name].update_parameters(model)
            found[name].append(vector(swas[name].module) if step >= start else vector(model))
    averaged = swas["swa"].module
    batches = [torch.randn(8, 1, 6, 6) * scale for scale in (1.0, 2.0, 0.5)]
    before = {name: value.numpy().copy() for name, value in averaged.state_dict().items() if "num_batches" not in name}
    update_bn(batches, averaged)
    arrays = {f"average/{name}": np.stack(rows) for name, rows in found.items()}
    arrays |= {f"weights/{name}": value for name, value in before.items()}
    arrays |= {f"updated/{name}": averaged.state_dict()[f"1.running_{name}"].numpy() for name in ("mean", "var")}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(OUT, network=np.stack(network_after), batches=torch.stack(batches).numpy(), **arrays)
    print(f"{OUT}: {OUT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
