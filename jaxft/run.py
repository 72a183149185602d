"""A run: fine-tune by a config, keep the newest and the best checkpoint, judge the best one on the locked test split.

`train` reads from top to bottom. Everything it uses is public, so another loop is a copy of this one.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxft import tree
from jaxft.checkpoint import Checkpoints
from jaxft.compiling import Compiles, keep_compiled
from jaxft.config import call, check_config
from jaxft.data import batch_examples
from jaxft.errors import JaxftError, SaveError
from jaxft.figures import Figures
from jaxft.heap import keep_heap
from jaxft.inputs import phase_input, picture_eval_step
from jaxft.log import RunLog
from jaxft.parallel import (
    check_batch_size,
    check_same,
    checked,
    end_watch,
    explained_shortage,
    is_first,
    make_mesh,
    put_batch,
    replicate,
    start,
)
from jaxft.paths import open_path
from jaxft.phases import Phase
from jaxft.plan import Plan, make_plan
from jaxft.progress import Progress, StopSignals, Stopwatch
from jaxft.result import Result, finish
from jaxft.standing import Standing
from jaxft.states import begin, first_state, jit_train_step, restore_state, roll_back, with_rate
from jaxft.train import eval_weights
from jaxft.workdir import open_workdir


def train(
    config: ConfigDict,
    workdir: str | Path,
    *,
    strict: bool = False,
    test: bool = True,
    go_on: Callable[[int, Mapping[str, float]], bool] | None = None,
) -> Result:
    """Runs a config in `workdir`, or continues what was begun there, on whatever devices and processes there are now.

    Args:
      config: see `jaxft.config.default_config`.
      workdir: a folder or `gs://BUCKET/FOLDER`; made if absent; must not hold a run of another config.
      strict: a step that is compiled again ends the run with an error, once all is saved; else it is only reported.
      test: False leaves the test split closed: the run ends with figures of the validation split. A finished run that is
        started again without it trains nothing and opens the test split.
      go_on: asked after each evaluation, with the steps made and the validation figures; where it says False the run is saved
        and ends as by a signal. In several processes it must say the same in all.

    Raises:
      JaxftError: something the user gave does not fit; nothing was lost.
      SaveError: the end of the run could not be saved.
    """
    check_config(config)
    keep_heap()  # before the devices are asked for
    processes = start(lost_after=config.parallel.lost_after)
    workdir, mesh = open_path(workdir), make_mesh(config.parallel.mesh)
    uncached = keep_compiled()
    with contextlib.ExitStack() as stack, explained_shortage():
        folder = stack.enter_context(open_workdir(workdir, config))
        plan = make_plan(config, manifest=folder.manifest)
        check_same("the data", plan.splits.fingerprint)
        check_batch_size(config.input.batch_size // config.train.accum_steps, mesh, "batch_size / accum_steps")
        folder.claim(config, plan.splits)
        progress = stack.enter_context(contextlib.closing(Progress(plan.total_steps, show=is_first())))
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(workdir / "checkpoints", say=progress.say)))
        state, standing = restore_state(plan, config, mesh, checkpoints, progress.say) or (
            first_state(plan, config, mesh),
            Standing(plan.phases[0].name),
        )
        step = int(state.step)
        checkpoints.failed = lambda lost, error: _not_saved(lost, error, standing, progress, checkpoints)
        log = stack.enter_context(contextlib.closing(_open_log(config, workdir, step, progress.say, folder.is_ours)))
        compiles = stack.enter_context(contextlib.closing(Compiles()))
        watch = stack.enter_context(contextlib.closing(Stopwatch(config.input.batch_size)))
        figures = Figures(
            log, progress, watch, compiles, nonfinite=config.train.nonfinite, newest=checkpoints.newest,
            examples=lambda at: batch_examples(plan.order, at - 1, config.input.batch_size),
        )  # fmt: skip
        stack.callback(figures.settle)  # whatever ends the run: a line that was due is written
        stop = stack.enter_context(contextlib.closing(StopSignals(step)))
        eval_step = compiles.watch(jax.jit(picture_eval_step(plan)), "the evaluation step")
        progress.begin(step)
        resumed = f"resuming at step {step}" if step else ""
        for line in (folder.taken, processes, uncached, plan.weights, *plan.splits.notes, resumed):
            progress.say(line)

        for phase in plan.phases:
            if step >= phase.stop:
                continue
            if standing.phase != phase.name:
                state = begin(plan, phase, config, mesh, checkpoints, state, standing, step)
                standing.enter(phase.name)
            for line in (_describe(phase, plan), *phase.notes):
                progress.say(line)
            given = phase_input(
                plan, phase, config, mesh, eval_step, state.params, state.model_state,
                workdir=workdir, say=progress.say, stop=stop.asked, watch=compiles.watch,
            )  # fmt: skip
            if given is None:
                return _interrupted(workdir, step, standing, progress)
            batches = stack.enter_context(contextlib.closing(given.batches(step)))
            train_step = jit_train_step(plan, phase, config, mesh, given.apply, given.augment)
            train_step = compiles.watch(checked(train_step, progress.say, where=phase.name), "the training step")
            figures.begin(phase.trained, standing.collection(plan.task.train_metrics), given.advise)
            watch.restart()
            running = None
            while step < phase.stop:
                # Neither this nor the step waits for the device: both are done while it works on the step before.
                with watch.waiting(running):
                    batch = put_batch(next(batches), mesh)
                state, metrics = train_step(state, batch)
                figures.settle()  # the line of the step before; the device has work meanwhile
                step += 1
                figures.add(step, metrics)
                running = jax.tree.leaves(metrics)[0]
                watch.step()

                stopping = stop.asked_at(step) and step < plan.total_steps
                if stopping or any(_due(step, phase, plan)):
                    figures.look()  # before anything is judged or saved; the training's own time ends here
                if figures.bad is not None:
                    progress.say(f"{figures.bad}; going back to the newest checkpoint, and on after that step")
                    step = figures.bad.step
                    state = roll_back(plan, phase, config, mesh, checkpoints, step, progress.say)
                    state = with_rate(state, phase, standing, mesh)
                    figures.begin(phase.trained, [], given.advise)
                    batches.close()
                    batches = stack.enter_context(contextlib.closing(given.batches(step)))
                judging, due = _due(step, phase, plan)
                over = step == phase.stop
                rate = phase.schedule(step - 1 - phase.start) * standing.factor
                if judging:
                    with watch.paused():
                        found = given.evaluate(*eval_weights(state))
                    log.metrics(step, "val", found.metrics)
                    gained = standing.judge(found.metrics, step, **plan.selection)
                    best = "best so far" if gained else f"best is step {standing.best_step}"
                    progress.say(f"step {step}  validation  {_figures(found.metrics)}  {best}")
                    if standing.follow(found.metrics, phase.plateau, phase.lr, config.train.monitor):
                        state = with_rate(state, phase, standing, mesh)
                        progress.say(f"{phase.name}: the learning rate is {phase.lr * standing.factor:.3g} from here on")
                    if go_on is not None and not go_on(step, found.metrics):
                        stopping = step < plan.total_steps
                    patience = config.train.patience
                    if patience is not None and standing.stale >= patience and not over:
                        progress.say(f"{phase.name} stops early: {standing.stale} evaluations without a gain")
                        over = True

                if step % plan.log_every == 0 or over:
                    figures.end_window(step, phase.name, rate)
                recompiles = [f"step {step}: {recompile}" for recompile in compiles.again()]
                for line in recompiles:
                    progress.say(line)
                if over and step < phase.stop:
                    # Phases have fixed places in time: ending one early is a jump of the clock to its end.
                    step = phase.stop
                    state = dataclasses.replace(state, step=replicate(jnp.int32(step), mesh))

                # Before the next batch is pulled: what is saved is what exactly `step` steps made.
                refused = strict and bool(recompiles)
                if judging or due or stopping or refused:
                    figures.settle()
                    log.flush()
                    folder.check_ours()
                    checkpoints.wait()  # what failed is forgotten before the record is made
                    standing.collect(figures.collected)
                    meta = {"run": plan.record, "standing": dataclasses.asdict(standing)}
                    checkpoints.save(state, meta, best_step=standing.best_step)
                if stopping or refused:
                    _finish_saving(checkpoints, workdir)
                if refused:
                    raise JaxftError(f"{recompiles[0]}; with --strict that is an error; step {step} is saved: start it again")
                if stopping:
                    return _interrupted(workdir, step, standing, progress)
            batches.close()
            standing.collected = None

        _finish_saving(checkpoints, workdir)
        progress.close()
        result = finish(eval_step, plan, config, mesh, checkpoints, standing, workdir, step, log, progress.say, test)
        for recompile in compiles.again():
            if strict:
                raise JaxftError(f"{recompile}; with --strict that is an error; the run is finished and saved in {workdir}")
            progress.say(str(recompile))
        end_watch()
        return result


def _due(step: int, phase: Phase, plan: Plan) -> tuple[bool, bool]:
    """Whether an evaluation, and whether a checkpoint, is due after `step` steps."""
    judging = (step - phase.start) % plan.eval_every == 0 or step == phase.stop
    return judging, plan.checkpoint_every is not None and step % plan.checkpoint_every == 0


def _interrupted(workdir: Path, step: int, standing: Standing, progress: Progress) -> Result:
    progress.say(f"stopped at step {step}; everything is saved: the same command goes on from there")
    end_watch()
    return Result("interrupted", workdir, step, standing.best_step)


def _not_saved(step: int, error: SaveError, standing: Standing, progress: Progress, checkpoints: Checkpoints) -> None:
    """A save failed: training goes on, and the next one may do better."""
    standing.forget(step)
    kept = checkpoints.steps()
    have = f"the newest is step {kept[-1]}" if kept else "there is none yet"
    progress.say(f"WARNING: {error}. Training goes on without that checkpoint; {have}")


def _finish_saving(checkpoints: Checkpoints, workdir: Path) -> None:
    if not checkpoints.wait():
        raise SaveError(f"the end of the run in {workdir} is not saved; its newest checkpoint is step {checkpoints.newest()}")


def _open_log(config: ConfigDict, workdir: Path, step: int, say: Callable[[str], None], is_ours: Callable[[], bool]) -> RunLog:
    given = {"workdir": workdir if is_first() else None, "resume_step": step or None, "config": config.to_dict()}
    return call(RunLog, config.log.to_dict(), "config.log", **given, say=say, is_ours=is_ours)


def _describe(phase: Phase, plan: Plan) -> str:
    trainable, _ = tree.split(plan.params, phase.mask)
    count, total = tree.count(trainable), tree.count(plan.params)
    epochs = (phase.stop - phase.start) * plan.clock.batch_size / plan.clock.examples
    return (
        f"{phase.name}: steps {phase.start} to {phase.stop} ({epochs:.3g} epochs), "
        f"{count:,} of {total:,} parameters trained ({count / total:.2%}), "
        f"learning rate {phase.lr:g}{f' ({phase.lr_source})' if phase.lr_source else ''}"
    )


def _figures(metrics: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
