"""Writes tests/continual/fixtures/fisher.npz: the Fisher diagonal of a small network by torch's autograd, in float64.

    TORCHENV/bin/python scripts/make_fisher_fixtures.py

A network of two dense layers with tanh between; one backward pass for each example and class.
"""

from pathlib import Path

import numpy as np
import torch

OUT = Path(__file__).parents[1] / "tests" / "continual" / "fixtures" / "fisher.npz"
EXAMPLES, INPUTS, HIDDEN, CLASSES = 7, 12, 5, 4


def main() -> None:
    rng = np.random.default_rng(0)
    given = {
        "image": rng.normal(size=(EXAMPLES, 2, 2, 3)),
        "label": rng.integers(0, CLASSES, EXAMPLES),
        "body/kernel": rng.normal(size=(INPUTS, HIDDEN)),
        "body/bias": rng.normal(size=HIDDEN),
        "head/kernel": rng.normal(size=(HIDDEN, CLASSES)),
        "head/bias": rng.normal(size=CLASSES),
    }
    leaves = {path: torch.tensor(value, requires_grad=True) for path, value in given.items() if "/" in path}
    expected = {path: torch.zeros_like(leaf) for path, leaf in leaves.items()}
    data = {path: torch.zeros_like(leaf) for path, leaf in leaves.items()}
    for image, label in zip(given["image"], given["label"], strict=True):
        hidden = torch.tanh(torch.tensor(image).ravel() @ leaves["body/kernel"] + leaves["body/bias"])
        answers = torch.log_softmax(hidden @ leaves["head/kernel"] + leaves["head/bias"], -1)
        for place in range(CLASSES):
            grads = torch.autograd.grad(answers[place], list(leaves.values()), retain_graph=True)
            for path, grad in zip(leaves, grads, strict=True):
                expected[path] += answers[place].detach().exp() * grad**2 / EXAMPLES
                if place == label:
                    data[path] += grad**2 / EXAMPLES
    found = {f"expected|{path}": leaf.numpy() for path, leaf in expected.items()}
    found |= {f"data|{path}": leaf.numpy() for path, leaf in data.items()}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    np.savez(OUT, **given, **found)


if __name__ == "__main__":
    main()
