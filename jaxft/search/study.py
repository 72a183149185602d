"""Trials as Optuna keeps them, in a file that survives a kill: `optuna-dashboard FOLDER/journal.log` shows it too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxft.errors import JaxftError
from jaxft.search.result import Trial
from jaxft.search.space import Space, as_text, draw

#: What is kept of a trial besides what Optuna has a place for: the steps of its evaluations, the best of them, that it is to be
#: pruned, why it failed.
_STEPS, _BEST_STEP, _PRUNED, _ERROR = "steps", "best_step", "pruned", "error"
_STATES = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}


def import_optuna() -> Any:
    """Optuna, quiet.

    Raises:
      JaxftError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise JaxftError("a sweep needs the package optuna: pip install 'jaxft[sweep]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def open_study(file: Path, *, method: str, mode: str, reduction_factor: int) -> Any:
    """The study kept in `file`, made if absent. The caller alone uses the file.

    Args:
      file: Optuna's journal.
      method: "random", or "asha": successive halving, a trial's resource being its evaluations.
      mode: "max" or "min".
      reduction_factor: of ASHA.
    """
    optuna = import_optuna()
    from optuna.storages.journal import JournalFileBackend

    file.with_name(f"{file.name}.lock").unlink(missing_ok=True)  # of a sweep that was killed while it wrote
    halving = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=reduction_factor)
    return optuna.create_study(
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(file))),
        pruner=halving if method == "asha" else optuna.pruners.NopPruner(),
        study_name="jaxft",
        direction="maximize" if mode == "max" else "minimize",
        load_if_exists=True,
    )


def unfinished(study: Any) -> list[Any]:
    """The trials that a sweep before this one began and did not end, to be gone on with."""
    optuna = import_optuna()
    running = study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING])
    return [optuna.trial.Trial(study, found._trial_id) for found in running]


def next_trial(study: Any, spaces: Mapping[str, Space], seed: int, most: int) -> Any:
    """The next trial, or None where there are `most` already. One thread at a time."""
    optuna = import_optuna()
    there = study.get_trials(deepcopy=False)
    waiting = any(found.state == optuna.trial.TrialState.WAITING for found in there)  # killed between the two calls below
    if len(there) >= most and not waiting:
        return None
    if not waiting:
        values = draw(spaces, seed, len(there))
        study.enqueue_trial({key: _kept(key, spaces[key], value) for key, value in values.items()})
    return study.ask({key: _distribution(key, space) for key, space in spaces.items()})


def _kept(key: str, space: Space, value: Any) -> Any:
    """Optuna keeps numbers and text; what is chosen may be anything."""
    return as_text(key, value) if space.kind == "choice" else value


def _distribution(key: str, space: Space) -> Any:
    distributions = import_optuna().distributions
    if space.kind == "choice":
        return distributions.CategoricalDistribution([_kept(key, space, value) for value in space.values])
    if space.kind == "int":
        return distributions.IntDistribution(*space.values)
    return distributions.FloatDistribution(*space.values, log=space.kind == "log")


def report(trial: Any, step: int, figure: float) -> bool:
    """Keeps an evaluation; returns whether the trial is to go on.

    The resource that ASHA shares out is the number of evaluations: steps do not compare where batches differ. An evaluation
    that a killed run makes again, after its checkpoint, counts once.
    """
    steps = list(trial.user_attrs.get(_STEPS, []))
    if step in steps:
        return not is_to_be_pruned(trial)
    trial.report(figure, len(steps) + 1)
    trial.set_user_attr(_STEPS, [*steps, step])
    if trial.should_prune():
        trial.set_user_attr(_PRUNED, True)  # decided once: a kill before the run is saved does not change it
    return not is_to_be_pruned(trial)


def is_to_be_pruned(trial: Any) -> bool:
    """Whether an evaluation said so."""
    return bool(trial.user_attrs.get(_PRUNED))


def finish(study: Any, trial: Any, figure: float, best_step: int) -> None:
    """A trial is over; `figure` is its best checkpoint's."""
    trial.set_user_attr(_BEST_STEP, best_step)
    study.tell(trial, figure)


def prune(study: Any, trial: Any) -> None:
    """A trial was stopped for being worse than others at the same evaluation."""
    study.tell(trial, state=import_optuna().trial.TrialState.PRUNED)


def fail(study: Any, trial: Any, error: str) -> None:
    trial.set_user_attr(_ERROR, error)
    study.tell(trial, state=import_optuna().trial.TrialState.FAIL)


def read_trials(study: Any, spaces: Mapping[str, Space], seed: int) -> tuple[Trial, ...]:
    """All trials, in the order they were begun."""
    found = []
    for kept in study.get_trials(deepcopy=False):
        judged = [kept.intermediate_values[place] for place in sorted(kept.intermediate_values)]
        state = _STATES.get(kept.state.name, "unfinished")
        figure = kept.value if state == "finished" else (judged[-1] if judged else None)
        found.append(
            Trial(
                number=kept.number,
                state=state,
                figure=figure if figure is not None and math.isfinite(figure) else None,
                best_step=kept.user_attrs.get(_BEST_STEP),
                evaluations=len(judged),
                overrides=draw(spaces, seed, kept.number),
                error=kept.user_attrs.get(_ERROR, ""),
            )
        )
    return tuple(found)
