"""Writes tests/losses/fixtures/fixmatch.npz: FixMatch's loss and its gradients, by torch in float64.

    TORCHENV/bin/python scripts/make_fixmatch_fixtures.py

The term of the unlabelled pictures is as PyTorch programs write it: `cross_entropy` of the strong looks with the classes that
the weak ones are taken for, times a mask, then the mean over all of them.
"""

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

OUT = Path(__file__).parents[1] / "tests" / "losses" / "fixtures" / "fixmatch.npz"
THRESHOLD, WEIGHT, TEMPERATURE, SMOOTHING = 0.7, 1.5, 2.0, 0.1


def main() -> None:
    rng = np.random.default_rng(0)
    given = {
        "logits": 3 * rng.normal(size=(4, 5)),
        "weak": 3 * rng.normal(size=(12, 5)),
        "strong": 3 * rng.normal(size=(12, 5)),
        "label": rng.integers(0, 5, 4),
    }
    have = {name: torch.tensor(value, requires_grad=value.dtype == np.float64) for name, value in given.items()}
    found = dict(given)
    cases = {"paper": (0.95, 1.0, 1.0, 0.0), "all set": (THRESHOLD, WEIGHT, TEMPERATURE, SMOOTHING)}
    for name, (threshold, weight, temperature, smoothing) in cases.items():
        labelled = F.cross_entropy(have["logits"], have["label"], label_smoothing=smoothing, reduction="none")
        probabilities, classes = torch.softmax(have["weak"].detach() / temperature, -1).max(-1)
        mask = probabilities.ge(threshold).to(torch.float64)
        assert 0 < mask.sum() < len(mask)
        unlabelled = (F.cross_entropy(have["strong"], classes, reduction="none") * mask).mean()
        loss = labelled + weight * unlabelled
        found[name] = loss.detach().numpy()
        grads = torch.autograd.grad(loss.mean(), [have["logits"], have["strong"]])
        found |= {f"{name}_of_{one}": grad.numpy() for one, grad in zip(("logits", "strong"), grads, strict=True)}
    np.savez_compressed(OUT, **found)


if __name__ == "__main__":
    main()
