"""The learning-rate range test: a few steps under a growing learning rate, and what its curve of losses suggests.

Smith, Cyclical Learning Rates for Training Neural Networks, 2017; smoothing, stopping and rules are those of fastai's `lr_find`
(`fastai.callback.schedule`).
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxft import tree
from jaxft.columns import aligned
from jaxft.compiling import keep_compiled
from jaxft.config import check_config
from jaxft.errors import JaxftError, near
from jaxft.heap import keep_heap
from jaxft.inputs import pictures
from jaxft.metrics import to_floats
from jaxft.optim.methods import METHODS
from jaxft.parallel import check_batch_size, explained_shortage, make_mesh, put, put_batch
from jaxft.phases import Phase
from jaxft.plan import Plan, make_plan
from jaxft.report import draw_curve
from jaxft.states import abstract_state, enter, first_weights, jit_train_step
from jaxft.train import TrainState
from jaxft.workdir import load_run

#: fastai's: the weight of what was before in the smoothed loss, and how far above its least the test ends.
SMOOTHING, DIVERGED = 0.98, 4.0
#: Of the curve a tenth at the beginning and so many points at the end suggest nothing.
_SKIP_SHARE, _SKIP_END = 10, 5


@dataclasses.dataclass(frozen=True)
class LrFind:
    """A range test.

    Attributes:
      phase: whose optimizer and trained part it is of.
      lrs: [N] f64, the learning rate of each step made.
      losses: [N] f64, the training loss of each step's batch.
      smoothed: [N] f64, see `smooth`.
      diverged: whether it ended before its last step.
      suggestions: rule -> learning rate.
      rule: the one that counts.
    """

    phase: str
    lrs: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    diverged: bool
    suggestions: dict[str, float]
    rule: str

    @property
    def lr(self) -> float:
        """What the rule suggests."""
        return self.suggestions[self.rule]

    def to_json(self) -> str:
        lists = {name: getattr(self, name).tolist() for name in ("lrs", "losses", "smoothed")}
        found = {"phase": self.phase, "lr": self.lr, "rule": self.rule, "suggestions": self.suggestions}
        # JSON has no infinity; a step whose loss was no number has none.
        lists = {name: [value if math.isfinite(value) else None for value in values] for name, values in lists.items()}
        return json.dumps({**found, "diverged": self.diverged, **lists}, indent=2)

    def __str__(self) -> str:
        ended = "the loss diverged there" if self.diverged else "the loss did not diverge: a larger --max-lr may show more"
        rows = [("rule", "learning rate"), *((name, f"{lr:.2e}") for name, lr in self.suggestions.items())]
        return "\n".join(
            [
                f"{self.phase}: {len(self.lrs)} steps, learning rate {self.lrs[0]:.1e} to {self.lrs[-1]:.1e}; {ended}",
                *aligned(rows, right=(1,)),
                f"suggested by {self.rule} ({RULES[self.rule][1]}): --config.phases.{self.phase}.lr={self.lr:.2g}",
            ]
        )

    def draw(self, path: Path) -> None:
        """Writes the curve as a PNG: losses, smoothed ones, and where the rules stand."""
        marks = {f"{name} {lr:.1e}": lr for name, lr in self.suggestions.items()}
        draw_curve(
            path,
            self.lrs,
            {"loss of a batch": self.losses, "smoothed": self.smoothed},
            marks=marks,
            title=f"{self.phase}: loss by learning rate",
            top=1.5 * float(self.smoothed[0]),  # a loss that diverges would leave no room for the rest
        )


def lr_find(
    config: ConfigDict,
    *,
    phase: str | None = None,
    steps: int = 100,
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    rule: str = "valley",
    start: str | Path | None = None,
) -> LrFind:
    """Makes training steps of a phase while the learning rate grows exponentially, until the loss diverges.

    The phase's own data, batches, augmentation, trained part and optimizer; only its schedule is another. Nothing is written
    and `config` is not changed. The same config gives the same curve.

    Args:
      config: see `jaxft.default_config`.
      phase: its name; None is the first.
      steps: at most; at least 20.
      min_lr, max_lr: of the first step and of the last.
      rule: one of `RULES`.
      start: a run (see `jaxft.load_run`) of the same network whose weights it begins with, for a phase that follows another;
        None are those that a run of the config begins with.

    Raises:
      JaxftError: something given does not fit, or the loss was no number before there was a curve.
    """
    if rule not in RULES:
        raise JaxftError(f"no rule is called '{rule}'{near(rule, RULES)}; there are {', '.join(RULES)}")
    if steps < 20:
        raise JaxftError(f"steps is {steps}: a curve needs at least 20")
    if not 0 < min_lr < max_lr:
        raise JaxftError(f"min_lr ({min_lr:g}) must be positive and less than max_lr ({max_lr:g})")
    check_config(config)
    keep_heap()
    keep_compiled()
    mesh = make_mesh(config.parallel.mesh)
    with explained_shortage():
        ramp = _ramp(config, phase, steps, min_lr, max_lr)
        plan = make_plan(ramp)
        check_batch_size(config.input.batch_size // config.train.accum_steps, mesh, "batch_size / accum_steps")
        found = next((one for one in plan.phases if one.name == phase), plan.phases[0])
        lrs = min_lr * (max_lr / min_lr) ** (np.arange(steps) / (steps - 1))
        losses = _losses(plan, found, ramp, mesh, _begin(plan, found, ramp, mesh, start), steps)
    smoothed = smooth(losses)
    lrs = lrs[: len(losses)]
    shown = slice(steps // _SKIP_SHARE, -_SKIP_END)
    if len(losses[shown]) < 3:
        raise JaxftError(f"the loss diverged at a learning rate of {lrs[-1]:.1e} already: give a smaller min_lr ({min_lr:g})")
    suggestions = {name: function(lrs[shown], smoothed[shown]) for name, (function, _) in RULES.items()}
    return LrFind(found.name, lrs, losses, smoothed, len(losses) < steps, suggestions, rule)


def _ramp(config: ConfigDict, phase: str | None, steps: int, min_lr: float, max_lr: float) -> ConfigDict:
    """A copy of the config whose phase has the growing learning rate."""
    if phase is not None and phase not in config.phases:
        raise JaxftError(f"config.phases has no '{phase}'{near(phase, config.phases)}; there are {', '.join(config.phases)}")
    ramp = copy.deepcopy(config)
    for name in ramp.phases:
        if phase in (None, name):
            section = ramp.phases[name]
            section.lr = min_lr
            name_of = section.optim.get("name", ramp.optim.name)
            if name_of in METHODS and METHODS[name_of].free:
                raise JaxftError(f"the optimizer '{name_of}' has a constant rate by its nature: no growing one can be tried")
            with section.unlocked():
                section.optim.update(schedule="step", step_every="1 steps", warmup="0 steps", end_lr=0.0)
                section.optim.schedule_options = ConfigDict()
                section.optim.step_factor = (max_lr / min_lr) ** (1 / (steps - 1))
    return ramp


def _begin(plan: Plan, phase: Phase, config: ConfigDict, mesh: Mesh, start: str | Path | None) -> TrainState:
    if start is None:
        params, model_state = first_weights(plan, phase, config, mesh)
        return enter(plan, phase, config, mesh, params, model_state, phase.start)
    tuned = load_run(start)
    if differs := tree.diff(plan.model.shapes[0], tuned.params, dtypes=False):
        raise JaxftError(f"{start} holds a {tuned.model.name}, not the {plan.model.name} of the config: {differs}")
    abstract = abstract_state(plan, phase, config, mesh)
    places = jax.tree.map(lambda leaf: leaf.sharding, (abstract.params, abstract.model_state))
    params, model_state = put(jax.device_get((dict(tuned.params), dict(tuned.model_state))), places)
    return enter(plan, phase, config, mesh, params, model_state, phase.start)


def _losses(plan: Plan, phase: Phase, config: ConfigDict, mesh: Mesh, state: TrainState, steps: int) -> np.ndarray:
    """The loss of each step, f64; the last one is where it diverged, or the `steps`-th."""
    step = jit_train_step(plan, phase, config, mesh)
    batches = pictures(plan, config, mesh, step).batches(phase.start)
    losses: list[float] = []
    try:
        for _ in range(steps):
            state, metrics = step(state, put_batch(next(batches), mesh))
            losses.append(to_floats(jax.device_get(metrics))["loss"])
            if has_diverged(np.asarray(losses)):
                break
    finally:
        batches.close()
    return np.asarray(losses)


def smooth(losses: np.ndarray) -> np.ndarray:
    """fastai's smoothed loss [N] f64: an exponential moving average from zero, over the sum of its weights."""
    value, found = 0.0, []
    for count, loss in enumerate(losses, 1):
        value = SMOOTHING * value + (1 - SMOOTHING) * float(loss)
        found.append(value / (1 - SMOOTHING**count))
    return np.asarray(found)


def has_diverged(losses: np.ndarray) -> bool:
    """Whether the last loss is no number, or the smoothed one is more than four times its least."""
    smoothed = smooth(losses)
    return not math.isfinite(losses[-1]) or bool(smoothed[-1] > DIVERGED * smoothed.min())


def valley(lrs: np.ndarray, losses: np.ndarray) -> float:
    """Half of the way into the longest valley, the longest subsequence of losses each below the one before."""
    longest = np.ones(len(losses), int)
    for end in range(1, len(losses)):
        above = losses[:end] > losses[end]
        if above.any():
            longest[end] = longest[:end][above].max() + 1
    end = int(longest.argmax())
    # As fastai counts: the length of the subsequence back from its end, though it need not be of neighbours.
    begin = end - int(longest[end]) if end else 0
    third = (end - begin) / 3
    return float(lrs[max(begin + int(third) + int(third / 2), 0)])


def steepest(lrs: np.ndarray, losses: np.ndarray) -> float:
    """Where the loss falls fastest by the logarithm of the learning rate."""
    return float(lrs[int((np.diff(losses) / np.diff(np.log(lrs))).argmin())])


def minimum(lrs: np.ndarray, losses: np.ndarray) -> float:
    """A tenth of the learning rate at the least loss."""
    return float(lrs[int(losses.argmin())]) / 10


#: Rule -> (function of learning rates and smoothed losses, what it is).
RULES: dict[str, tuple[Callable[[Any, Any], float], str]] = {
    "valley": (valley, "half of the way down the longest fall of the loss"),
    "steepest": (steepest, "where the loss falls fastest"),
    "minimum": (minimum, "a tenth of where the loss is least"),
}
