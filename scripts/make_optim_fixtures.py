"""Writes tests/fixtures/optim.npz: where torch's optimizers take a few parameters, and what its schedulers give.

Needs torch, in an environment of its own:  python scripts/make_optim_fixtures.py
"""

from pathlib import Path

import numpy as np
import torch

STEPS = 30
SHAPES = {
    "stem/kernel": (3, 4),
    "stem/bias": (4,),
    "norm/scale": (4,),
    "norm/bias": (4,),
    "head/kernel": (4, 3),
    "head/bias": (3,),
}
# name -> (optimizer, its arguments, which leaves decay, learning rate of the head over that of the rest, clip, trained)
RUNS = {
    "sgd": ("SGD", {"lr": 0.05}, "kernels", 1, None, "all"),
    "momentum": ("SGD", {"lr": 0.01, "momentum": 0.9}, "kernels", 1, None, "all"),
    "momentum_decay": ("SGD", {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1}, "kernels", 1, None, "all"),
    "momentum_decay_all": ("SGD", {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1}, "all", 1, None, "all"),
    "nesterov_decay": (
        "SGD",
        {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1, "nesterov": True},
        "kernels",
        1,
        None,
        "all",
    ),
    "momentum_groups": ("SGD", {"lr": 0.01, "momentum": 0.8, "weight_decay": 0.1}, "kernels", 2, None, "all"),
    "momentum_clip": ("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}, "kernels", 1, 0.5, "all"),
    "clip_frozen": ("SGD", {"lr": 0.05, "momentum": 0.9}, "kernels", 1, 0.5, "head"),
    "adam": ("Adam", {"lr": 0.002}, "kernels", 1, None, "all"),
    "adam_l2": ("Adam", {"lr": 0.002, "weight_decay": 0.1}, "kernels", 1, None, "all"),
    "adam_betas": ("Adam", {"lr": 0.002, "betas": (0.8, 0.95), "eps": 1e-3}, "kernels", 1, None, "all"),
    "adamw": ("AdamW", {"lr": 0.002, "weight_decay": 0.1}, "kernels", 1, None, "all"),
    "adamw_all": ("AdamW", {"lr": 0.002, "weight_decay": 0.1}, "all", 1, None, "all"),
    "adamw_groups": ("AdamW", {"lr": 0.002, "weight_decay": 0.1}, "kernels", 2, None, "all"),
    "adamw_clip": ("AdamW", {"lr": 0.002, "weight_decay": 0.1}, "kernels", 1, 0.5, "all"),
    "adamw_cosine": ("AdamW", {"lr": 0.002, "weight_decay": 0.1}, "kernels", 1, None, "all"),
}
KEPT = (1, 2, 10, 30)


def run(start, gradients, optimizer, arguments, decayed, head, clip, trained):
    leaves = {path: torch.tensor(value, requires_grad=True) for path, value in start.items()}
    live = {path: leaf for path, leaf in leaves.items() if trained == "all" or path.startswith(trained)}
    groups = []
    for path, leaf in live.items():
        group = {"params": [leaf], "lr": arguments["lr"] * (head if path.startswith("head") else 1)}
        if decayed == "kernels" and leaf.ndim <= 1:
            group["weight_decay"] = 0.0
        groups.append(group)
    return live, getattr(torch.optim, optimizer)(groups, **arguments)


def schedules():
    """Learning rates at the steps 0..30."""

    def rates(make, lr=0.4):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
        scheduler = make(optimizer)
        found = []
        for _ in range(STEPS + 1):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return np.array(found)

    of = torch.optim.lr_scheduler
    warm = lambda optimizer: of.LinearLR(optimizer, start_factor=1 / 6, total_iters=5)

    def after_warmup(make):
        return lambda optimizer: of.SequentialLR(optimizer, [warm(optimizer), make(optimizer)], milestones=[6])

    return {
        "cosine": rates(lambda optimizer: of.CosineAnnealingLR(optimizer, 30, eta_min=0.1)),
        "linear": rates(lambda optimizer: of.LinearLR(optimizer, 1.0, 0.25, total_iters=30)),
        "step": rates(lambda optimizer: of.StepLR(optimizer, 7, gamma=0.3)),
        "constant_warm": rates(after_warmup(lambda optimizer: of.ConstantLR(optimizer, factor=1.0))),
        "cosine_warm": rates(after_warmup(lambda optimizer: of.CosineAnnealingLR(optimizer, 24, eta_min=0.1))),
        "linear_warm": rates(after_warmup(lambda optimizer: of.LinearLR(optimizer, 1.0, 0.25, total_iters=24))),
        "step_warm": rates(after_warmup(lambda optimizer: of.StepLR(optimizer, 7, gamma=0.3))),
    }


def main() -> None:
    rng = np.random.default_rng(0)
    start = {path: rng.normal(size=shape).astype(np.float32) for path, shape in SHAPES.items()}
    # A drift and noise, as training has; a large step in the middle, so that clipping is not all there is.
    drift = {path: rng.normal(size=shape) for path, shape in SHAPES.items()}
    scale = np.where(np.arange(STEPS) % 5 == 0, 0.02, 0.5)
    gradients = {
        path: ((drift[path] + rng.normal(size=(STEPS, *shape))) * scale.reshape(-1, *[1] * len(shape))).astype(np.float32)
        for path, shape in SHAPES.items()
    }
    found = {f"start|{path}": value for path, value in start.items()}
    found |= {f"gradients|{path}": value for path, value in gradients.items()}
    for name, settings in RUNS.items():
        live, optimizer = run(start, gradients, *settings)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS) if name.endswith("cosine") else None
        clip = settings[4]
        norms, kept = [], []
        for step in range(STEPS):
            for path, leaf in live.items():
                leaf.grad = torch.tensor(gradients[path][step])
            if clip is not None:
                norms.append(torch.nn.utils.clip_grad_norm_(live.values(), clip).item())
            optimizer.step()
            if cosine is not None:
                cosine.step()
            if step + 1 in KEPT:
                kept.append(np.concatenate([leaf.detach().numpy().ravel() for leaf in live.values()]))
        if clip is not None:
            # Both sides of the threshold, or the runs would not show that small gradients are left alone.
            assert min(norms) < clip < max(norms), norms
        found[f"run|{name}"] = np.stack(kept)  # [KEPT, all numbers of the trained leaves, one leaf after the other]
    found |= {f"rate|{name}": value for name, value in schedules().items()}
    path = Path(__file__).parent.parent / "tests" / "fixtures" / "optim.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **found)


if __name__ == "__main__":
    main()
