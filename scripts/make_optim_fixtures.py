"""Writes tests/optim/fixtures/optim.npz: where torch's and timm's optimizers take a few parameters, and what
torch's schedulers give.

Needs torch and timm, in an environment of its own:  python scripts/make_optim_fixtures.py
"""

from pathlib import Path

import numpy as np
import timm.optim
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
    "nadam": ("NAdam", {"lr": 0.002}, "kernels", 1, None, "all"),
    "nadam_l2": ("NAdam", {"lr": 0.002, "weight_decay": 0.1, "momentum_decay": 0.05}, "kernels", 1, None, "all"),
    "nadamw_groups": (
        "NAdam",
        {"lr": 0.002, "weight_decay": 0.1, "decoupled_weight_decay": True},
        "kernels",
        2,
        None,
        "all",
    ),
    "adamax": ("Adamax", {"lr": 0.002, "weight_decay": 0.1}, "kernels", 1, None, "all"),
    "rmsprop": ("RMSprop", {"lr": 0.002, "eps": 1e-2}, "kernels", 1, None, "all"),
    "rmsprop_momentum": (
        "RMSprop",
        {"lr": 0.002, "alpha": 0.9, "momentum": 0.8, "weight_decay": 0.1},
        "kernels",
        2,
        0.5,
        "all",
    ),
    "rmsprop_centered": ("RMSprop", {"lr": 0.002, "eps": 1e-3, "centered": True}, "kernels", 1, None, "all"),
    "adafactor": ("Adafactor", {"lr": 0.02, "weight_decay": 0.1}, "kernels", 1, None, "all"),
    "muon_plain": (
        "Muon",
        {"lr": 0.02, "weight_decay": 0.1, "nesterov": False, "adjust_lr_fn": "match_rms_adamw"},
        "kernels",
        1,
        None,
        "stem/kernel",
    ),
    "lamb": ("timm:Lamb", {"lr": 0.002, "weight_decay": 0.1, "max_grad_norm": None}, "kernels", 1, None, "all"),
    "lamb_clip_groups": ("timm:Lamb", {"lr": 0.002, "weight_decay": 0.1, "max_grad_norm": 0.5}, "kernels", 2, None, "all"),
    "lars": ("timm:Lars", {"lr": 1.0, "momentum": 0.9, "weight_decay": 0.1}, "kernels", 1, None, "all"),
    "lars_nesterov": (
        "timm:Lars",
        {"lr": 1.0, "momentum": 0.9, "weight_decay": 0.1, "trust_coeff": 0.02, "nesterov": True},
        "kernels",
        2,
        None,
        "all",
    ),
    "lion": ("timm:Lion", {"lr": 0.002, "weight_decay": 0.1}, "kernels", 2, None, "all"),
    "momentum_onecycle": ("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}, "kernels", 1, None, "all"),
    "nesterov_onecycle_three": ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True}, "kernels", 1, None, "all"),
    "adam_onecycle": ("Adam", {"lr": 0.002}, "kernels", 1, None, "all"),
    "adamw_onecycle": ("AdamW", {"lr": 0.002, "weight_decay": 0.1}, "kernels", 1, None, "all"),
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
    library, _, of_timm = optimizer.partition(":")
    factory = getattr(timm.optim, of_timm) if of_timm else getattr(torch.optim, library)
    return live, factory(groups, **arguments)


def schedules():
    """Learning rates at the steps 0..30."""

    def rates(make, lr=0.4):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
        scheduler = make(optimizer)
        found = []
        for _ in range(STEPS + 1):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if len(found) < STEPS or not isinstance(scheduler, of.OneCycleLR):
                scheduler.step()
        return np.array(found)

    of = torch.optim.lr_scheduler
    warm = lambda optimizer: of.LinearLR(optimizer, start_factor=1 / 6, total_iters=5)

    def after_warmup(make):
        return lambda optimizer: of.SequentialLR(optimizer, [warm(optimizer), make(optimizer)], milestones=[6])

    def cycle(**options):
        return lambda optimizer: of.OneCycleLR(optimizer, 0.4, total_steps=STEPS, cycle_momentum=False, **options)

    return {
        "polynomial": rates(lambda optimizer: of.PolynomialLR(optimizer, total_iters=30, power=2.0)),
        "onecycle": rates(cycle())[:STEPS],
        "onecycle_linear": rates(cycle(anneal_strategy="linear", pct_start=0.25, div_factor=10.0, final_div_factor=50.0))[
            :STEPS
        ],
        "onecycle_three": rates(cycle(three_phase=True, pct_start=0.4))[:STEPS],
        "onecycle_odd": rates(cycle(pct_start=0.43, anneal_strategy="linear", three_phase=True))[:STEPS],
        "cosine": rates(lambda optimizer: of.CosineAnnealingLR(optimizer, 30, eta_min=0.1)),
        "linear": rates(lambda optimizer: of.LinearLR(optimizer, 1.0, 0.25, total_iters=30)),
        "step": rates(lambda optimizer: of.StepLR(optimizer, 7, gamma=0.3)),
        "constant_warm": rates(after_warmup(lambda optimizer: of.ConstantLR(optimizer, factor=1.0))),
        "cosine_warm": rates(after_warmup(lambda optimizer: of.CosineAnnealingLR(optimizer, 24, eta_min=0.1))),
        "linear_warm": rates(after_warmup(lambda optimizer: of.LinearLR(optimizer, 1.0, 0.25, total_iters=24))),
        "step_warm": rates(after_warmup(lambda optimizer: of.StepLR(optimizer, 7, gamma=0.3))),
    }


# name -> (mode, arguments of ReduceLROnPlateau beside it)
PLATEAUS = {
    "max": ("max", {"factor": 0.5, "patience": 2}),
    "min": ("min", {"factor": 0.5, "patience": 0, "cooldown": 2}),
    "max_abs": ("max", {"factor": 0.3, "patience": 1, "threshold": 0.05, "threshold_mode": "abs", "min_lr": 0.02}),
    "min_abs": ("min", {"factor": 0.3, "patience": 1, "threshold": 0.05, "threshold_mode": "abs", "cooldown": 1}),
    "max_rel": ("max", {"factor": 0.1, "patience": 1, "threshold": 0.1, "min_lr": 1e-9}),
}


def plateaus(rng):
    """The rate after each of 60 figures that rise, fall, stay, and once are no number."""
    values = np.cumsum(rng.normal(size=60) * 0.1)
    values[20:26] = values[20]
    values[7] = np.nan
    found = {"plateau_values": values}
    for name, (mode, arguments) in PLATEAUS.items():
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode=mode, **arguments)
        rates = []
        for value in values:
            scheduler.step(float(value))
            rates.append(optimizer.param_groups[0]["lr"])
        found[f"plateau|{name}"] = np.array(rates)
    return found


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
        of, scheduler = torch.optim.lr_scheduler, None
        if name.endswith("cosine"):
            scheduler = of.CosineAnnealingLR(optimizer, STEPS)
        if "onecycle" in name:  # torch cycles the momentum by default
            more = {"three_phase": True, "pct_start": 0.4, "anneal_strategy": "linear"} if name.endswith("three") else {}
            scheduler = of.OneCycleLR(optimizer, settings[1]["lr"], total_steps=STEPS, **more)
        clip = settings[4]
        norms, kept = [], []
        for step in range(STEPS):
            for path, leaf in live.items():
                leaf.grad = torch.tensor(gradients[path][step])
            if clip is not None:
                norms.append(torch.nn.utils.clip_grad_norm_(live.values(), clip).item())
            optimizer.step()
            if scheduler is not None and step + 1 < STEPS:
                scheduler.step()
            if step + 1 in KEPT:
                kept.append(np.concatenate([leaf.detach().numpy().ravel() for leaf in live.values()]))
        if clip is not None:
            # Both sides of the threshold, or the runs would not show that small gradients are left alone.
            assert min(norms) < clip < max(norms), norms
        found[f"run|{name}"] = np.stack(kept)  # [KEPT, all numbers of the trained leaves, one leaf after the other]
    found |= plateaus(rng)
    found |= {f"rate|{name}": value for name, value in schedules().items()}
    path = Path(__file__).parent.parent / "tests" / "optim" / "fixtures" / "optim.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **found)


if __name__ == "__main__":
    main()
