"""Writes tests/losses/fixtures/distillation.npz: losses against a teacher and their gradients, by torch in float64.

    TORCHENV/bin/python scripts/make_distillation_fixtures.py

Hinton's loss is torch's `kl_div`; attention transfer and similarity are written as their papers' formulas.
"""

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

OUT = Path(__file__).parents[1] / "tests" / "losses" / "fixtures" / "distillation.npz"
WEIGHT, TEMPERATURE = 0.7, 3.0


def main() -> None:
    rng = np.random.default_rng(0)
    given = {
        "logits": 3 * rng.normal(size=(6, 5)),
        "teacher_logits": 3 * rng.normal(size=(6, 5)),
        "label": rng.integers(0, 5, 6),
        "stage1": rng.normal(size=(6, 4, 4, 3)),
        "teacher_stage1": rng.normal(size=(6, 4, 4, 7)),
        "stage2": rng.normal(size=(6, 2, 2, 8)),
        "teacher_stage2": rng.normal(size=(6, 2, 2, 9)),
    }
    have = {name: torch.tensor(value, requires_grad=value.dtype == np.float64) for name, value in given.items()}
    found = dict(given)

    def record(name: str, loss: torch.Tensor, *wanted: str) -> None:
        found[name] = loss.detach().numpy()
        for one, grad in zip(wanted, torch.autograd.grad(loss.mean(), [have[one] for one in wanted]), strict=True):
            found[f"{name}_of_{one}"] = grad.numpy()

    plain = F.cross_entropy(have["logits"], have["label"], reduction="none")
    student = F.log_softmax(have["logits"] / TEMPERATURE, -1)
    teacher = F.softmax(have["teacher_logits"].detach() / TEMPERATURE, -1)
    apart = F.kl_div(student, teacher, reduction="none").sum(-1)
    record("hinton", (1 - WEIGHT) * plain + WEIGHT * TEMPERATURE**2 * apart, "logits")

    def attention(maps: torch.Tensor) -> torch.Tensor:
        return F.normalize(maps.pow(2).mean(-1).flatten(1))

    distances = [
        (attention(have[name]) - attention(have[f"teacher_{name}"].detach())).pow(2).mean(-1) for name in ("stage1", "stage2")
    ]
    record("attention", plain.detach() + 1000 * sum(distances), "stage1", "stage2")

    def alike(maps: torch.Tensor) -> torch.Tensor:
        flat = maps.flatten(1)
        return F.normalize(flat @ flat.T)

    similar = (alike(have["stage2"]) - alike(have["teacher_stage2"].detach())).pow(2).sum() / 6**2
    record("similarity", plain.detach().mean() + 3000 * similar, "stage2")
    np.savez(OUT, **found)


if __name__ == "__main__":
    main()
