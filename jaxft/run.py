"""A run: fine-tune by a config, keep the newest and the best checkpoint, judge the best one on the locked test split.

`train` reads from top to bottom. Everything it uses is public, so another loop is a copy of this one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxft import tree
from jaxft.checkpoint import Checkpoints
from jaxft.compiling import Compiles, keep_compiled
from jaxft.config import call, check_config
from jaxft.errors import JaxftError
from jaxft.figures import Figures
from jaxft.heap import keep_heap
from jaxft.inputs import evaluate_pictures, phase_input
from jaxft.log import RunLog
from jaxft.parallel import check_batch_size, checked, data_mesh, put_batch, replicate, replicated
from jaxft.plan import Phase, Plan, make_plan
from jaxft.progress import Progress, Stopwatch, catch_stop_signals
from jaxft.report import Judged, judge, write_report, write_samples
from jaxft.standing import Standing
from jaxft.train import TrainState, create_state, eval_params, make_eval_step, make_train_step, remat_options
from jaxft.typing import ApplyFn, ModelState, Params
from jaxft.workdir import check_workdir, claim_workdir

#: `(state, batch) -> (state, metrics)`, under `jax.jit`.
JittedStep = Any


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
      status: "finished" or "interrupted" (a signal; everything is saved).
      workdir: the folder of the run; `jaxft.load_run(workdir)` gives the network.
      step: steps made.
      best_step: step of the checkpoint that judged best on the validation split.
      split: what `before` and `after` were judged on: "test", or "val" where there is no test split.
      before, after: the network with its new head before the first step, and the best checkpoint.
    """

    status: str
    workdir: Path
    step: int
    best_step: int | None
    split: str = ""
    before: Judged | None = None
    after: Judged | None = None


def train(config: ConfigDict, workdir: str | Path, *, resume: bool = False, strict: bool = False) -> Result:
    """Runs a config in `workdir`, or continues what was begun there.

    Args:
      config: see `jaxft.config.default_config`.
      workdir: made if absent; must not hold a run unless `resume`.
      resume: continue from the newest checkpoint; begin afresh where there is none yet.
      strict: a step that is compiled again ends the run with an error, once all is saved; else it is only reported.

    Raises:
      JaxftError: something the user gave does not fit; nothing was lost.
      SaveError: a checkpoint could not be written.
    """
    check_config(config)
    keep_heap()  # before the devices are asked for
    workdir, mesh = Path(workdir), data_mesh()
    uncached = keep_compiled()
    plan = make_plan(config, manifest=check_workdir(workdir, config, resume=resume))
    check_batch_size(config.input.batch_size // config.train.accum_steps, mesh, "batch_size / accum_steps")
    claim_workdir(workdir, config, plan.splits)
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(workdir / "checkpoints")))
        state, standing = _restore(config, plan, mesh, checkpoints) or (
            _enter(config, plan.phases[0], mesh, plan.params, plan.model_state, 0),
            Standing(plan.phases[0].name),
        )
        step = int(state.step)
        log = stack.enter_context(contextlib.closing(_open_log(config, workdir, step)))
        progress = stack.enter_context(contextlib.closing(Progress(plan.total_steps, done=step, show=jax.process_index() == 0)))
        compiles = stack.enter_context(contextlib.closing(Compiles()))
        watch = stack.enter_context(contextlib.closing(Stopwatch(config.input.batch_size)))
        figures = Figures(log, progress, watch, compiles, checkpoints.newest)
        stack.callback(figures.settle)  # whatever ends the run: a line that was due is written
        stop_asked = stack.enter_context(catch_stop_signals())
        eval_step = compiles.watch(
            jax.jit(make_eval_step(plan.apply, plan.loss, metrics=plan.task.metrics)), "the evaluation step"
        )
        for line in (uncached, plan.weights, *plan.splits.notes, f"resuming at step {step}" if step else ""):
            progress.say(line)

        for phase in plan.phases:
            if step >= phase.stop:
                continue
            if standing.phase != phase.name:
                state = _enter(config, phase, mesh, state.params, state.model_state, step)
                standing = dataclasses.replace(standing, phase=phase.name, stale=0)
            progress.say(_describe(phase, plan))
            given = phase_input(
                plan, phase, config, mesh, eval_step, state.params, state.model_state,
                workdir=workdir, say=progress.say, stop=stop_asked, watch=compiles.watch,
            )  # fmt: skip
            if given is None:
                progress.say(f"stopped at step {step}; everything is saved: go on with --resume")
                return Result("interrupted", workdir, step, standing.best_step)
            batches = stack.enter_context(contextlib.closing(given.batches(step)))
            train_step = checked(jit_train_step(plan, phase, config, given.apply), progress.say, where=phase.name)
            train_step = compiles.watch(train_step, "the training step")
            figures.collected = standing.collection(plan.task.train_metrics)
            watch.restart()
            running = None
            while step < phase.stop:
                # Neither this nor the step waits for the device: both are done while it works on the step before.
                with watch.waiting(running):
                    batch = put_batch(next(batches), mesh)
                state, metrics = train_step(state, batch)
                figures.settle()  # the line of the step before; the device has work meanwhile
                figures.add(metrics)
                running = jax.tree.leaves(metrics)[0]
                step += 1
                watch.step()

                judging = (step - phase.start) % plan.eval_every == 0 or step == phase.stop
                over = step == phase.stop
                if judging:
                    jax.block_until_ready(state.step)  # the training's own time ends here
                    with watch.paused():
                        found = given.evaluate(eval_params(state), state.model_state)
                    log.metrics(step, "val", found.metrics)
                    gained = standing.judge(found.metrics, step, **plan.selection)
                    best = "best so far" if gained else f"best is step {standing.best_step}"
                    progress.say(f"step {step}  validation  {_figures(found.metrics)}  {best}")
                    patience = config.train.patience
                    if patience is not None and standing.stale >= patience and not over:
                        progress.say(f"{phase.name} stops early: {standing.stale} evaluations without a gain")
                        over = True

                if step % plan.log_every == 0 or over:
                    figures.end_window(step, phase.name, phase.schedule(step - 1 - phase.start))
                recompiles = [f"step {step}: {recompile}" for recompile in compiles.again()]
                for line in recompiles:
                    progress.say(line)
                if over and step < phase.stop:
                    # Phases have fixed places in time: ending one early is a jump of the clock to its end.
                    step = phase.stop
                    state = dataclasses.replace(state, step=replicate(jnp.int32(step), mesh))

                # Before the next batch is pulled: what is saved is what exactly `step` steps made.
                stopping = stop_asked() and step < plan.total_steps
                due = plan.checkpoint_every is not None and step % plan.checkpoint_every == 0
                refused = strict and bool(recompiles)
                if judging or due or stopping or refused:
                    figures.settle()  # first: a loss that is not finite is not saved
                    standing.collect(figures.collected)
                    meta = {"run": plan.record, "standing": dataclasses.asdict(standing)}
                    checkpoints.save(state, meta, best_step=standing.best_step)
                if stopping or refused:
                    checkpoints.finish(best_step=standing.best_step)
                if refused:
                    raise JaxftError(
                        f"{recompiles[0]}; with --strict that is an error; step {step} is saved: go on with --resume"
                    )
                if stopping:
                    progress.say(f"stopped at step {step}; everything is saved: go on with --resume")
                    return Result("interrupted", workdir, step, standing.best_step)
            batches.close()
            standing.collected = None

        checkpoints.finish(best_step=standing.best_step)
        progress.close()
        if standing.best_step is None:
            raise AssertionError("every phase ends with an evaluation")
        result = _finish(eval_step, state, plan, config, mesh, checkpoints, standing.best_step, workdir, log)
        for recompile in compiles.again():
            if strict:
                raise JaxftError(f"{recompile}; with --strict that is an error; the run is finished and saved in {workdir}")
            progress.say(str(recompile))
        return result


def jit_train_step(plan: Plan, phase: Phase, config: ConfigDict, apply: ApplyFn | None = None) -> JittedStep:
    """The compiled training step of a phase. The state is donated: its memory becomes the next state's.

    `apply` is the network on what the phase reads; None: on pictures.
    """
    step = make_train_step(
        apply or plan.apply,
        plan.loss,
        phase.tx,
        phase.mask,
        metrics=plan.task.train_metrics,
        accum_steps=config.train.accum_steps,
        ema_decay=config.train.ema_decay,
    )
    return jax.jit(step, donate_argnums=0, compiler_options=remat_options() if config.model.remat else None)


def _enter(config: ConfigDict, phase: Phase, mesh: Mesh, params: Params, model_state: ModelState, step: int) -> TrainState:
    """A phase starts with a fresh optimizer and fresh averages: its trainable part, and so their shape, is another."""
    # Jitted with its shardings, so that no state is ever whole on one device first.
    make = jax.jit(functools.partial(_state, config, phase), out_shardings=replicated(mesh))
    return dataclasses.replace(make(params, model_state), step=replicate(jnp.int32(step), mesh))


def _restore(config: ConfigDict, plan: Plan, mesh: Mesh, checkpoints: Checkpoints) -> tuple[TrainState, Standing] | None:
    step = checkpoints.newest()
    if step is None:
        return None
    meta = checkpoints.meta(step)
    if meta["run"]["data_fingerprint"] != plan.splits.fingerprint:
        raise JaxftError(
            f"the data changed since step {step} was saved ('{config.data.source}' has other files or labels): "
            "a resumed run needs the same data; start a new --workdir"
        )
    standing = Standing(**meta["standing"])
    phase = next(phase for phase in plan.phases if phase.name == standing.phase)
    state = jax.eval_shape(functools.partial(_state, config, phase), plan.params, plan.model_state)
    placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh)), state)
    return checkpoints.restore(step, placed), standing


def _state(config: ConfigDict, phase: Phase, params: Params, model_state: ModelState) -> TrainState:
    rng = jax.random.key(config.seed)
    return create_state(params, model_state, phase.tx, phase.mask, rng=rng, ema=config.train.ema_decay is not None)


def _open_log(config: ConfigDict, workdir: Path, step: int) -> RunLog:
    return call(
        RunLog,
        config.log.to_dict(),
        "config.log",
        workdir=workdir,
        resume_step=step or None,
        config=config.to_dict(),
    )


def _describe(phase: Phase, plan: Plan) -> str:
    trainable, _ = tree.split(plan.params, phase.mask)
    count, total = tree.count(trainable), tree.count(plan.params)
    epochs = (phase.stop - phase.start) * plan.clock.batch_size / plan.clock.examples
    return (
        f"{phase.name}: steps {phase.start} to {phase.stop} ({epochs:.3g} epochs), "
        f"{count:,} of {total:,} parameters trained ({count / total:.2%})"
    )


def _figures(metrics: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def _finish(
    eval_step: Callable[..., Any],
    state: TrainState,
    plan: Plan,
    config: ConfigDict,
    mesh: Mesh,
    checkpoints: Checkpoints,
    best_step: int,
    workdir: Path,
    log: RunLog,
) -> Result:
    """Opens the test split, once, for the network as it began and for the best checkpoint."""
    split, source = ("test", plan.splits.test) if plan.splits.test is not None else ("val", plan.val)
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh)), (state.params, state.model_state)
    )
    began = replicate((plan.params, plan.model_state), mesh)
    before = judge(evaluate_pictures(eval_step, *began, source, plan, config, mesh), plan.task, plan.splits.class_names)
    best = checkpoints.restore_weights(best_step, *abstract)
    evaluation = evaluate_pictures(eval_step, *best, source, plan, config, mesh)
    after = judge(evaluation, plan.task, plan.splits.class_names)
    log.metrics(int(state.step), split, evaluation.metrics)
    title = f"{plan.model.name} on {config.data.source}"
    text = write_report(
        workdir, before, after, evaluation, source, plan.task, plan.splits.class_names,
        title=title, split=split, step=best_step,
    )  # fmt: skip
    write_samples(workdir / "samples.png", evaluation, source, plan.task, plan.splits.class_names)
    print(text.replace("```\n", ""), flush=True)
    files = [name for name in ("report.md", "predictions.csv", "samples.png") if (workdir / name).exists()]
    print(f"{workdir}: {', '.join(files)}; use it: jaxft predict --workdir={workdir} PICTURE", flush=True)
    return Result("finished", workdir, int(state.step), best_step, split, before, after)
