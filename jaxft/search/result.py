"""What a sweep found: its trials, the best of them, as a table and as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from pathlib import Path
from typing import Any

from jaxft.columns import aligned
from jaxft.search.space import as_text

_ORDER = ("finished", "pruned", "unfinished", "failed")


@dataclasses.dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
      number: from 0; its workdir is `trials/NNN`.
      state: "finished", "pruned" (stopped by ASHA; its run can be gone on with), "failed" or "unfinished".
      figure: the monitored validation figure: of a finished trial the best checkpoint's, else the last evaluation's.
      best_step: step of the best checkpoint of a finished trial.
      evaluations: how often it was judged.
      overrides: key -> value, what was set in the config.
      error: why it failed.
    """

    number: int
    state: str
    figure: float | None
    best_step: int | None
    evaluations: int
    overrides: dict[str, Any]
    error: str = ""

    @property
    def arguments(self) -> list[str]:
        """The overrides as `jaxft train` takes them."""
        return [f"--{key}={as_text(key, value)}" for key, value in self.overrides.items()]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A sweep, as far as it went.

    Attributes:
      status: "finished" or "interrupted" (a signal; the same call goes on).
      workdir: holds `trials/`, `logs/`, `sweep.json` and Optuna's `journal.log`.
      settings: what was searched, and how.
      trials: in the order they were begun.
    """

    status: str
    workdir: Path
    settings: dict[str, Any]
    trials: tuple[Trial, ...]

    @property
    def sorted(self) -> list[Trial]:
        """Finished trials before pruned ones, each the best first."""
        sign = -1 if self.settings["mode"] == "max" else 1

        def rank(trial: Trial) -> tuple[int, float, int]:
            known = trial.figure is not None and math.isfinite(trial.figure)
            return (
                _ORDER.index(trial.state),
                sign * trial.figure if known and trial.figure is not None else math.inf,
                trial.number,
            )

        return sorted(self.trials, key=rank)

    @property
    def best(self) -> Trial | None:
        """The finished trial with the best figure; None where none is finished."""
        first = next(iter(self.sorted), None)
        return first if first is not None and first.state == "finished" else None

    def folder(self, trial: Trial) -> Path:
        """The workdir of a trial: an ordinary run's."""
        return trial_folder(self.workdir, trial.number)

    def command(self, trial: Trial, config: str, overrides: list[str]) -> str:
        """What trains a trial further or, where it is finished, opens its test split.

        Args:
          trial: of this sweep.
          config, overrides: the sweep's own `--config` and `--config.KEY=VALUE` arguments.
        """
        arguments = [f"--config={config}", *overrides, *trial.arguments, f"--workdir={self.folder(trial)}"]
        return shlex.join(["jaxft", "train", *arguments])

    def to_json(self) -> str:
        """All of it; the same bytes for the same search, seed and trials, whatever the clock says."""
        best = self.best
        record = {
            **self.settings,
            "best": None if best is None else best.number,
            "trials": [
                {**dataclasses.asdict(trial), "workdir": str(trial_folder(Path(), trial.number))} for trial in self.trials
            ],
        }
        return json.dumps(record, indent=2) + "\n"

    def __str__(self) -> str:
        keys = list(self.settings["search"])
        rows = [
            ("trial", "state", self.settings["monitor"], "step", "evaluations", *(key.removeprefix("config.") for key in keys))
        ]
        for trial in self.sorted:
            figure = "" if trial.figure is None else f"{trial.figure:.4f}"
            step = "" if trial.best_step is None else str(trial.best_step)
            values = [_short(trial.overrides[key]) for key in keys]
            rows.append((f"{trial.number:03d}", trial.state, figure, step, str(trial.evaluations), *values))
        errors = [f"{trial.number:03d} failed: {trial.error}" for trial in self.trials if trial.error]
        return "\n".join([*aligned(rows, right=(2, 3, 4)), *errors])


def trial_folder(workdir: Path, number: int) -> Path:
    return workdir / "trials" / f"{number:03d}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
