"""A run: fine-tune by a config, keep the newest and the best checkpoint, judge the best one on the locked test split.

`train` reads from top to bottom. Everything it uses is public, so another loop is a copy of this one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxft import tree
from jaxft.checkpoint import Checkpoints
from jaxft.config import call
from jaxft.data import Source, eval_batches, train_batches
from jaxft.errors import JaxftError
from jaxft.evaluate import Evaluation, evaluate
from jaxft.log import RunLog
from jaxft.metrics import to_floats
from jaxft.parallel import check_batch_size, data_mesh, put_batch, replicate, replicated
from jaxft.plan import Phase, Plan, make_plan
from jaxft.progress import Progress, Stopwatch, catch_stop_signals
from jaxft.report import Judged, judge, write_report, write_samples
from jaxft.train import TrainState, create_state, eval_params, make_eval_step, make_train_step
from jaxft.typing import Batch, ModelState, Params
from jaxft.workdir import check_workdir, claim_workdir


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


@dataclasses.dataclass
class Standing:
    """What the loop knows besides the state. It is saved with each checkpoint: with it a resumed run goes on exactly."""

    phase: str  # whose optimizer state the checkpoint holds
    best_step: int | None = None
    best: float | None = None
    stale: int = 0  # evaluations in this phase since the last gain
    collected: list[list[float]] | None = None  # the training metrics since the last log line, leaf by leaf


def train(config: ConfigDict, workdir: str | Path, *, resume: bool = False) -> Result:
    """Runs a config in `workdir`, or continues what was begun there.

    Args:
      config: see `jaxft.config.default_config`.
      workdir: made if absent; must not hold a run unless `resume`.
      resume: continue from the newest checkpoint; begin afresh where there is none yet.

    Raises:
      JaxftError: something the user gave does not fit; nothing was lost.
      SaveError: a checkpoint could not be written.
    """
    mesh = data_mesh()
    check_batch_size(config.input.batch_size, mesh, "config.input.batch_size")
    check_batch_size(config.input.batch_size // config.train.accum_steps, mesh, "batch_size / accum_steps")
    workdir = Path(workdir)
    check_workdir(workdir, config, resume=resume)
    plan = make_plan(config, manifest=workdir / "splits.json")
    claim_workdir(workdir, config)
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(workdir / "checkpoints")))
        state, standing = _restore(config, plan, mesh, checkpoints) or _begin(config, plan, mesh)
        step = int(state.step)
        log = stack.enter_context(contextlib.closing(_open_log(config, workdir, step)))
        progress = stack.enter_context(contextlib.closing(Progress(plan.total_steps, done=step)))
        batches = stack.enter_context(contextlib.closing(_train_batches(config, plan, step)))
        stop_asked = stack.enter_context(catch_stop_signals())
        eval_step = jax.jit(make_eval_step(plan.apply, plan.loss, metrics=plan.task.metrics))
        for line in (plan.weights, *plan.splits.notes, f"resuming at step {step}" if step else ""):
            progress.say(line)

        for phase in plan.phases:
            if step >= phase.stop:
                continue
            if standing.phase != phase.name:
                # A phase starts with a fresh optimizer: its trainable part, and so its state, is another.
                state = dataclasses.replace(state, opt_state=_opt_state(state.params, phase, mesh))
                state = dataclasses.replace(state, ema=_averages(config, state.params, phase, mesh))
                standing = dataclasses.replace(standing, phase=phase.name, stale=0)
            progress.say(_describe(phase, plan))
            train_step = jit_train_step(plan, phase, config)
            collected = _unpack(standing.collected, plan)
            watch = Stopwatch(config.input.batch_size)
            while step < phase.stop:
                with watch.waiting():
                    batch = put_batch(next(batches), mesh)
                state, metrics = train_step(state, batch)
                collected.append(metrics)
                step += 1
                watch.step()

                judging = (step - phase.start) % plan.eval_every == 0 or step == phase.stop
                over = step == phase.stop
                if judging:
                    jax.block_until_ready(state.step)  # the training's own time ends here
                    with watch.paused():
                        found = _evaluate(eval_step, eval_params(state), state.model_state, plan.splits.val, plan, config, mesh)
                    log.metrics(step, "val", found.metrics)
                    gained = _judge(standing, found.metrics, config, step)
                    best = "best so far" if gained else f"best is step {standing.best_step}"
                    progress.say(f"step {step}  validation  {_figures(found.metrics)}  {best}")
                    patience = config.train.patience
                    if patience is not None and standing.stale >= patience and not over:
                        progress.say(f"{phase.name} stops early: {standing.stale} evaluations without a gain")
                        over = True

                if step % plan.log_every == 0 or over:
                    values = _to_floats(collected)
                    values["lr"] = float(phase.schedule(step - 1 - phase.start))
                    collected = []
                    timing = watch.read()
                    log.metrics(step, "train", values)
                    log.timing(step, timing)
                    progress.update(step, values, timing)
                    if not math.isfinite(values["loss"]):
                        raise JaxftError(
                            f"the training loss is {values['loss']} at step {step}: lower config.phases.{phase.name}.lr or "
                            f"set config.optim.clip_norm; the newest checkpoint is step {checkpoints.newest()}"
                        )
                if over and step < phase.stop:
                    # Phases have fixed places in time: ending one early is a jump of the clock to its end.
                    step = phase.stop
                    state = dataclasses.replace(state, step=replicate(jnp.int32(step), mesh))
                    batches.close()
                    batches = stack.enter_context(contextlib.closing(_train_batches(config, plan, step)))

                # Before the next batch is pulled: what is saved is what exactly `step` steps made.
                stopping = stop_asked() and step < plan.total_steps
                due = plan.checkpoint_every is not None and step % plan.checkpoint_every == 0
                if judging or due or stopping:
                    standing.collected = _pack(collected)
                    meta = {"run": plan.record, "standing": dataclasses.asdict(standing)}
                    checkpoints.save(state, meta, best_step=standing.best_step)
                if stopping:
                    checkpoints.finish(best_step=standing.best_step)
                    progress.say(f"stopped at step {step}; everything is saved: go on with --resume")
                    return Result("interrupted", workdir, step, standing.best_step)
            standing.collected = None

        checkpoints.finish(best_step=standing.best_step)
        progress.close()
        if standing.best_step is None:
            raise AssertionError("every phase ends with an evaluation")
        return _finish(eval_step, state, plan, config, mesh, checkpoints, standing.best_step, workdir, log)


def jit_train_step(plan: Plan, phase: Phase, config: ConfigDict) -> Callable[..., tuple[TrainState, Any]]:
    """The compiled training step of a phase. The state is donated: its memory becomes the next state's."""
    step = make_train_step(
        plan.apply,
        plan.loss,
        phase.tx,
        phase.mask,
        metrics=plan.task.train_metrics,
        accum_steps=config.train.accum_steps,
        ema_decay=config.train.ema_decay,
    )
    return jax.jit(step, donate_argnums=0)


def _begin(config: ConfigDict, plan: Plan, mesh: Mesh) -> tuple[TrainState, Standing]:
    phase = plan.phases[0]
    make = lambda params, model_state: _state(config, phase, params, model_state)
    # Jitted with its shardings, so that no state is ever whole on one device first.
    state = jax.jit(make, out_shardings=replicated(mesh))(plan.params, plan.model_state)
    return state, Standing(phase.name)


def _restore(
    config: ConfigDict, plan: Plan, mesh: Mesh, checkpoints: Checkpoints
) -> tuple[TrainState, Standing] | None:
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
    state = jax.eval_shape(
        lambda params, model_state: _state(config, phase, params, model_state), plan.params, plan.model_state
    )
    placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh)), state)
    return checkpoints.restore(step, placed), standing


def _state(config: ConfigDict, phase: Phase, params: Params, model_state: ModelState) -> TrainState:
    rng = jax.random.key(config.seed)
    return create_state(params, model_state, phase.tx, phase.mask, rng=rng, ema=config.train.ema_decay is not None)


def _opt_state(params: Params, phase: Phase, mesh: Mesh) -> Any:
    trainable, _ = tree.split(params, phase.mask)
    return jax.jit(phase.tx.init, out_shardings=replicated(mesh))(trainable)


def _averages(config: ConfigDict, params: Params, phase: Phase, mesh: Mesh) -> Params | None:
    if config.train.ema_decay is None:
        return None
    trainable, _ = tree.split(params, phase.mask)
    # A copy: the step donates parameters and averages, which must not share memory.
    return jax.jit(lambda leaves: jax.tree.map(jnp.copy, leaves), out_shardings=replicated(mesh))(trainable)


def _open_log(config: ConfigDict, workdir: Path, step: int) -> RunLog:
    return call(
        RunLog,
        config.log.to_dict(),
        "config.log",
        workdir=workdir,
        resume_step=step or None,
        config=config.to_dict(),
    )


def _train_batches(config: ConfigDict, plan: Plan, step: int) -> Any:
    section = {key: value for key, value in config.input.items() if key != "eval_batch_size"}
    return call(
        train_batches,
        section,
        "config.input",
        source=plan.splits.train,
        preprocessing=plan.model.preprocessing,
        channels=plan.model.in_channels,
        seed=config.seed,
        start_step=step,
        host=jax.process_index(),
        hosts=jax.process_count(),
    )


def _evaluate(
    eval_step: Callable[..., Any],
    params: Params,
    model_state: ModelState,
    source: Source,
    plan: Plan,
    config: ConfigDict,
    mesh: Mesh,
) -> Evaluation:
    batches = eval_batches(
        source,
        plan.model.preprocessing,
        batch_size=-(-config.input.eval_batch_size // mesh.size) * mesh.size,
        channels=plan.model.in_channels,
        host=jax.process_index(),
        hosts=jax.process_count(),
        threads=config.input.threads,
    )

    def put(batch: Mapping[str, np.ndarray]) -> Batch:
        return put_batch(batch, mesh)

    return evaluate(eval_step, params, model_state, batches, expect=len(source), put=put)


def _judge(standing: Standing, metrics: Mapping[str, float], config: ConfigDict, step: int) -> bool:
    """Compares with the best so far; returns whether this evaluation gains by more than `min_delta`."""
    name, mode = config.train.monitor, config.train.mode
    if name not in metrics:
        raise JaxftError(f"config.train.monitor is '{name}', not one of the validation figures: {', '.join(metrics)}")
    if mode not in ("max", "min"):
        raise JaxftError(f"config.train.mode is '{mode}', not 'max' or 'min'")
    value = metrics[name] if mode == "max" else -metrics[name]
    gained = math.isfinite(value) and (standing.best is None or value > standing.best + config.train.min_delta)
    if gained or standing.best_step is None:
        standing.best, standing.best_step = (value if gained else None), step
    standing.stale = 0 if gained else standing.stale + 1
    return gained


def _merge(collected: list[Any]) -> Any:
    merged = collected[0]
    for metrics in collected[1:]:
        merged = merged.merge(metrics)
    return merged


def _to_floats(collected: list[Any]) -> dict[str, float]:
    """The only place where the loop waits for the device: at log points."""
    return to_floats(_merge(jax.device_get(collected)))


def _pack(collected: list[Any]) -> list[list[float]] | None:
    """Sums since the last log line, as numbers that JSON keeps exactly."""
    if not collected:
        return None
    return [np.asarray(leaf, np.float64).ravel().tolist() for leaf in jax.tree.leaves(_merge(jax.device_get(collected)))]


def _unpack(packed: list[list[float]] | None, plan: Plan) -> list[Any]:
    if packed is None:
        return []
    empty = jax.eval_shape(plan.task.train_metrics.empty)
    leaves, treedef = jax.tree.flatten(empty)
    values = [np.asarray(value, leaf.dtype).reshape(leaf.shape) for value, leaf in zip(packed, leaves, strict=True)]
    return [jax.tree.unflatten(treedef, values)]


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
    split, source = ("test", plan.splits.test) if plan.splits.test is not None else ("val", plan.splits.val)
    assert source is not None
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh)), (state.params, state.model_state)
    )
    began = replicate((plan.params, plan.model_state), mesh)
    before = judge(_evaluate(eval_step, *began, source, plan, config, mesh), plan.task, plan.splits.class_names)
    best = checkpoints.restore_weights(best_step, *abstract)
    evaluation = _evaluate(eval_step, *best, source, plan, config, mesh)
    after = judge(evaluation, plan.task, plan.splits.class_names)
    log.metrics(int(state.step), split, evaluation.metrics)
    title = f"{plan.model.name} on {config.data.source}"
    text = write_report(
        workdir, before, after, evaluation, source, plan.task, plan.splits.class_names,
        title=title, split=split, step=best_step,
    )  # fmt: skip
    write_samples(workdir / "samples.png", evaluation, source, plan.task, plan.splits.class_names)
    print(text.replace("```\n", ""), flush=True)
    print(f"{workdir}: report.md, predictions.csv, samples.png; use it: jaxft predict --workdir={workdir} PICTURE", flush=True)
    return Result("finished", workdir, int(state.step), best_step, split, before, after)
