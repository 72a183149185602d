"""Learning rates as functions of the step, and the one rate that follows the validation figures: plateau."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import optax

from jaxft.errors import JaxftError, near

#: Learning rate of a step (int or int32 array), counted from 0.
Schedule = Callable[[Any], Any]

#: Options of "onecycle" that are `momentum_cycle`'s.
_MOMENTUM = ("cycle_momentum", "base_momentum", "max_momentum")
#: What comes after the warm-up.
SCHEDULES = ("constant", "cosine", "linear", "polynomial", "step", "onecycle", "plateau")


def make_schedule(
    lr: float,
    *,
    total_steps: int,
    schedule: str = "cosine",
    warmup_steps: int = 0,
    end_lr: float = 0.0,
    step_every: int | None = None,
    step_factor: float = 0.1,
    options: Mapping[str, Any] | None = None,
) -> Schedule:
    """Linear warm-up, then a decay.

    Step s of a warm-up of W steps has `lr * (s + 1) / W`: the first step already moves, the W-th has the full rate.

    Args:
      lr: the peak.
      total_steps: length of warm-up and decay together.
      schedule: "constant"; "cosine", "linear" or "polynomial" down to `end_lr`; "step": times `step_factor` every `step_every`
        steps; "onecycle", which has a warm-up of its own (see `onecycle`); "plateau": constant here, and times the factor that
        `Plateau` gives.
      warmup_steps: W.
      end_lr: where cosine, linear and polynomial end, and the least rate of plateau.
      step_every, step_factor: of "step".
      options: of "polynomial": `power` (1.0); of "onecycle" and "plateau": see `onecycle`, `momentum_cycle` and `Plateau`.

    Raises:
      JaxftError: an argument out of its range.
    """
    if schedule not in SCHEDULES:
        raise JaxftError(f"no schedule is called '{schedule}'{near(schedule, SCHEDULES)}; there are {', '.join(SCHEDULES)}")
    if not lr > 0:
        raise JaxftError(f"lr is {lr}: it must be positive")
    if not 0 <= warmup_steps <= total_steps:
        raise JaxftError(f"warm-up of {warmup_steps} steps does not fit into {total_steps} steps")
    if not 0 <= end_lr <= lr:
        raise JaxftError(f"end_lr is {end_lr}: it must lie between 0 and lr ({lr})")
    given = _taken(schedule, options or {})
    if schedule == "onecycle":
        if warmup_steps or end_lr:
            raise JaxftError(
                "schedule 'onecycle' has a warm-up and an end of its own: set warmup to '0 steps' and end_lr to 0, and "
                "pct_start, div_factor and final_div_factor in schedule_options"
            )
        return onecycle(lr, total_steps, **{key: value for key, value in given.items() if key not in _MOMENTUM})
    rest = max(total_steps - warmup_steps, 1)
    if schedule in ("constant", "plateau"):
        main: Schedule = optax.constant_schedule(lr)
    elif schedule == "cosine":
        main = optax.cosine_decay_schedule(lr, rest, alpha=end_lr / lr)
    elif schedule == "linear":
        main = optax.linear_schedule(lr, end_lr, rest)
    elif schedule == "polynomial":
        power = given.get("power", 1.0)
        if not power > 0:
            raise JaxftError(f"the power of schedule 'polynomial' is {power}: it must be positive")
        main = optax.polynomial_schedule(lr, end_lr, power, rest)
    else:
        if not step_every or step_every < 1:
            raise JaxftError("schedule 'step' needs step_every, e.g. '10 epochs'")
        main = optax.exponential_decay(lr, step_every, step_factor, staircase=True)
    if not warmup_steps:
        return main
    warmup = optax.linear_schedule(lr / warmup_steps, lr, max(warmup_steps - 1, 1))
    return optax.join_schedules([warmup, main], [warmup_steps])


def _taken(schedule: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a schedule, each one it takes."""
    known = {
        "polynomial": ["power"],
        "onecycle": [*list(inspect.signature(onecycle).parameters)[2:], *_MOMENTUM],
        "plateau": [field.name for field in dataclasses.fields(Plateau) if field.name not in _PLATEAU_GIVEN],
    }.get(schedule, [])
    for key in options:
        if key not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise JaxftError(f"schedule '{schedule}' has no option '{key}'{near(key, known)}; {takes}")
    return dict(options)


def onecycle(
    lr: float,
    total_steps: int,
    *,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    anneal: str = "cos",
    three_phase: bool = False,
) -> Schedule:
    """The one-cycle policy (Smith & Topin, 2018), step for step that of `torch.optim.lr_scheduler.OneCycleLR`.

    From `lr / div_factor` up to `lr`, then down to `lr / div_factor / final_div_factor`. The momentum's part of it, where it is
    wanted, is `momentum_cycle`.

    Args:
      lr: the peak.
      total_steps: length of the cycle; later steps have its last rate.
      pct_start: share of the steps in which the rate rises.
      div_factor, final_div_factor: see above.
      anneal: "cos" or "linear", between the corners.
      three_phase: down as long as up, back to `lr / div_factor`; what is left goes to the end.

    Raises:
      JaxftError: an argument out of its range.
    """
    if not 0 <= pct_start <= 1:
        raise JaxftError(f"pct_start of schedule 'onecycle' is {pct_start}: it must lie between 0 and 1")
    if three_phase and pct_start > 0.5:
        raise JaxftError(f"pct_start of schedule 'onecycle' is {pct_start}: three phases need at most 0.5")
    if div_factor <= 0 or final_div_factor <= 0:
        raise JaxftError(
            f"div_factor ({div_factor}) and final_div_factor ({final_div_factor}) of schedule 'onecycle' must be positive"
        )
    if anneal not in ("cos", "linear"):
        raise JaxftError(f"anneal of schedule 'onecycle' is '{anneal}', not 'cos' or 'linear'")
    first, last = lr / div_factor, lr / div_factor / final_div_factor
    return _cycle((first, lr, first, last) if three_phase else (first, lr, last), total_steps, pct_start, anneal)


def momentum_cycle(options: Mapping[str, Any] | None, total_steps: int) -> Schedule | None:
    """The momentum (Adam's b1) of "onecycle" where its options say `cycle_momentum=True`, as torch's; None where they do not.

    From `max_momentum` (0.95) down to `base_momentum` (0.85) while the rate rises, and up again.

    Args:
      options: of `make_schedule`.
      total_steps: length of the cycle.

    Raises:
      JaxftError: a momentum out of its range.
    """
    given = dict(options or {})
    if not given.get("cycle_momentum"):
        return None
    base, top = given.get("base_momentum", 0.85), given.get("max_momentum", 0.95)
    if not 0 <= base <= top < 1:
        raise JaxftError(f"base_momentum ({base}) and max_momentum ({top}) of schedule 'onecycle' must lie in [0, 1), in order")
    three = given.get("three_phase", False)
    corners = (top, base, top, top) if three else (top, base, top)
    return _cycle(corners, total_steps, given.get("pct_start", 0.3), given.get("anneal", "cos"))


def _cycle(values: Sequence[float], total_steps: int, pct_start: float, anneal: str) -> Schedule:
    """From value to value; the first piece is `pct_start` of the steps, of three pieces the second one as long."""
    rise = pct_start * total_steps
    places = [0.0, rise - 1, *([2 * rise - 2] if len(values) == 4 else []), max(total_steps - 1, 1)]
    corners = list(zip(places, values, strict=True))

    def value(step: Any) -> Any:
        step = jnp.minimum(jnp.asarray(step, jnp.float32), total_steps - 1)
        found = jnp.float32(values[-1])
        # Backwards: the first piece whose end is not behind the step counts, as in torch.
        for (start, begin), (stop, end) in reversed(list(itertools.pairwise(corners))):
            share = (step - start) / (stop - start if stop != start else 1.0)
            # Squares, not 1 + cos: small rates at the end keep their digits.
            before, after = jnp.cos(jnp.pi / 2 * share) ** 2, jnp.sin(jnp.pi / 2 * share) ** 2
            piece = begin * before + end * after if anneal == "cos" else begin * (1 - share) + end * share
            found = piece if stop == corners[-1][0] else jnp.where(step <= stop, piece, found)
        return found

    return value


_PLATEAU_GIVEN = ("mode", "min_lr")


@dataclasses.dataclass(frozen=True)
class PlateauState:
    """What plateau remembers from one evaluation to the next, in numbers that JSON keeps exactly.

    Attributes:
      lr: the rate now, before warm-up.
      best: the best figure; None before the first.
      bad: evaluations since without a gain.
      cooldown: evaluations still to pass before they count again.
    """

    lr: float
    best: float | None = None
    bad: int = 0
    cooldown: int = 0


@dataclasses.dataclass(frozen=True)
class Plateau:
    """Lowers the rate when the figure of the evaluations stops to gain: `torch.optim.lr_scheduler.ReduceLROnPlateau`.

    A function of (state, figure): called after every evaluation, on the host, in float64.

    Attributes:
      mode: "max" or "min", which figure is better.
      min_lr: the least rate.
      factor: what the rate is multiplied by.
      patience: evaluations without a gain that are let pass; the next one lowers the rate.
      threshold, threshold_mode: what a gain must exceed: a share of the best ("rel"), or so much ("abs").
      cooldown: evaluations after a lowering that do not count.
    """

    mode: str = "max"
    min_lr: float = 0.0
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    threshold_mode: str = "rel"
    cooldown: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.factor < 1:
            raise JaxftError(f"factor of schedule 'plateau' is {self.factor}: it must lie between 0 and 1")
        for name in ("patience", "threshold", "cooldown"):
            if getattr(self, name) < 0:
                raise JaxftError(f"{name} of schedule 'plateau' is {getattr(self, name)}: it must not be negative")
        if self.threshold_mode not in ("rel", "abs"):
            raise JaxftError(f"threshold_mode of schedule 'plateau' is '{self.threshold_mode}', not 'rel' or 'abs'")
        if self.mode not in ("max", "min"):
            raise JaxftError(f"mode of schedule 'plateau' is '{self.mode}', not 'max' or 'min'")

    def __call__(self, state: PlateauState, value: float) -> PlateauState:
        """The state after an evaluation that gave `value`. A NaN is no gain."""
        best, bad = (value, 0) if self._gains(value, state.best) else (state.best, state.bad + 1)
        cooldown, lr = state.cooldown, state.lr
        if cooldown > 0:
            cooldown, bad = cooldown - 1, 0
        if bad > self.patience:
            lower = max(lr * self.factor, self.min_lr)
            lr = lower if lr - lower > 1e-8 else lr  # torch's eps
            cooldown, bad = self.cooldown, 0
        return PlateauState(lr, best, bad, cooldown)

    def _gains(self, value: float, best: float | None) -> bool:
        if best is None:
            return value == value and value != (float("inf") if self.mode == "min" else float("-inf"))
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "abs":
            return value > best + self.threshold if sign > 0 else value < best - self.threshold
        return value > best * (1 + self.threshold) if sign > 0 else value < best * (1 - self.threshold)


def make_plateau(schedule: str, options: Mapping[str, Any] | None, *, mode: str, min_lr: float) -> Plateau | None:
    """The `Plateau` of a schedule's options; None where the schedule is another."""
    return Plateau(mode=mode, min_lr=min_lr, **_taken(schedule, options or {})) if schedule == "plateau" else None
