"""How a run ends: the test split is opened, once, for the network as it began and for the best checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxft.checkpoint import Checkpoints
from jaxft.errors import JaxftError
from jaxft.inputs import evaluate_pictures
from jaxft.log import RunLog
from jaxft.parallel import is_first
from jaxft.plan import Plan
from jaxft.report import Judged, judge, write_report, write_samples
from jaxft.standing import Standing
from jaxft.states import abstract_state, first_weights
from jaxft.tasks import UNLABELLED


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
      status: "finished" or "interrupted" (a signal; everything is saved).
      workdir: the folder of the run; `jaxft.load_run(workdir)` gives the network.
      step: steps made.
      best_step: step of the checkpoint that judged best on the validation split.
      split: what `before` and `after` were judged on: "test", or "val" where there is no test split, or it stayed closed.
      before, after: the network with its new head before the first step, and the best checkpoint.
    """

    status: str
    workdir: Path
    step: int
    best_step: int | None
    split: str = ""
    before: Judged | None = None
    after: Judged | None = None


def finish(
    eval_step: Callable[..., Any],
    plan: Plan,
    config: ConfigDict,
    mesh: Mesh,
    checkpoints: Checkpoints,
    standing: Standing,
    workdir: Path,
    step: int,
    log: RunLog,
    say: Callable[[str], None],
    test: bool,
) -> Result:
    """Opens the test split, once, for the network as it began and for the best checkpoint; without `test` it stays closed."""
    if standing.best_step is None:
        raise JaxftError(
            f"no evaluation of the run was finite, so there is no best checkpoint: the newest, step {checkpoints.newest()}, is "
            f"saved in {workdir}; lower the learning rate and start anew"
        )
    split, source = ("test", plan.splits.test) if test and plan.splits.test is not None else ("val", plan.val)
    phase = plan.phases[-1]
    abstract = abstract_state(plan, phase, config, mesh)
    began = first_weights(plan, phase, config, mesh)
    before = judge(evaluate_pictures(eval_step, *began, source, plan, config, mesh), plan.task, plan.splits.class_names)
    best = checkpoints.restore_weights(standing.best_step, abstract.params, abstract.model_state)
    evaluation = evaluate_pictures(eval_step, *best, source, plan, config, mesh)
    after = judge(evaluation, plan.task, plan.splits.class_names)
    if test:
        log.metrics(step, split, evaluation.metrics)
    if is_first():
        title = f"{plan.model.name} on {config.data.source}"
        text = write_report(
            workdir, before, after, evaluation, source, plan.task, plan.splits.class_names,
            title=title, split=split, step=standing.best_step,
        )  # fmt: skip
        write_samples(workdir / "samples.png", evaluation, source, plan.task, plan.splits.class_names)
        say(text.replace("```\n", ""))
        files = [name for name in ("report.md", "predictions.csv", "samples.png") if (workdir / name).exists()]
        use = f"jaxft predict --workdir={workdir} PICTURE"
        if plan.task.name == UNLABELLED:
            use = f"jaxft train --config=... --config.model.pretrained=run:{workdir}"
        say(f"{workdir}: {', '.join(files)}; use it: {use}")
    return Result("finished", workdir, step, standing.best_step, split, before, after)
