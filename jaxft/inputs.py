"""What a phase reads: pictures, or the kept output of its frozen prefix (`config.features`)."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxft.config import call
from jaxft.data import LoadTimes, Source, advice, train_batches, unlabelled_batches
from jaxft.errors import JaxftError
from jaxft.evaluate import Evaluation, evaluate, evaluate_source, evaluate_views
from jaxft.features import (
    DTYPES,
    Prefix,
    Rows,
    Views,
    about,
    feature_batches,
    feature_eval_batches,
    fill,
    frozen_prefix,
    views_of,
)
from jaxft.losses import wanted
from jaxft.parallel import batch_parts, process_rows, put_batch
from jaxft.paths import is_remote, open_path
from jaxft.phases import Phase
from jaxft.plan import Plan
from jaxft.tasks import UNLABELLED
from jaxft.train import make_eval_step
from jaxft.train.step import EvalStep
from jaxft.typing import ApplyFn, Batch, ModelState, Params

HostBatches = Generator[dict[str, np.ndarray], None, None]


@dataclasses.dataclass(frozen=True)
class PhaseInput:
    """How a phase sees its examples.

    Attributes:
      apply: the network on `batch["image"]`, whatever that is.
      augment: what the training step does to a batch before; None is nothing.
      batches: training batches from a step on; close them.
      evaluate: `(params, model_state)` on the validation split.
      advise: what to do where a window's timing says that the device waits for data; "" is nothing.
    """

    apply: ApplyFn
    augment: Callable[[Batch], Batch] | None
    batches: Callable[[int], HostBatches]
    evaluate: Callable[[Params, ModelState], Evaluation]
    advise: Callable[[Mapping[str, float]], str] = lambda timing: ""


@dataclasses.dataclass(frozen=True)
class Features:
    """The features a phase is to read."""

    prefix: Prefix
    views: Views
    dtype: str


def picture_eval_step(plan: Plan, apply: ApplyFn | None = None) -> EvalStep:
    """The evaluation step of a run on pictures, to be jitted; `apply` is the network, where that is not the plan's."""
    return make_eval_step(
        apply or plan.apply,
        plan.eval_loss,
        metrics=plan.task.metrics,
        augment=plan.augment_batch if plan.eval_views > 1 else None,
        keep_logits=plan.task.name != UNLABELLED,
    )


def evaluate_pictures(
    eval_step: Callable[..., Any],
    params: Params,
    model_state: ModelState,
    source: Source,
    plan: Plan,
    config: ConfigDict,
    mesh: Mesh,
) -> Evaluation:
    """Evaluates the whole network on a source of pictures.

    Args:
      eval_step: `picture_eval_step`, jitted.
      params, model_state: of the network.
      source: the pictures.
      plan, config, mesh: of the run.
    """
    given = config.input
    read = {"batch_size": given.eval_batch_size, "mesh": mesh, "threads": given.threads, "processes": given.processes}
    if plan.eval_views == 1:
        return evaluate_source(eval_step, params, model_state, source, plan.model, **read)
    return evaluate_views(
        eval_step, params, model_state, source, plan.model,
        views=plan.eval_views, augment=plan.augment, seed=plan.seed, scaled_decode=given.scaled_decode, **read,
    )  # fmt: skip


#: Keys of `config.input` that `train_batches` does not take.
_NOT_READ = ("eval_batch_size", "unlabelled_ratio", "strong_augment")


def _beside(labelled: HostBatches, unlabelled: HostBatches) -> HostBatches:
    """Each batch with the unlabelled pictures of its step."""
    with contextlib.closing(labelled), contextlib.closing(unlabelled):
        for batch, more in zip(labelled, unlabelled, strict=True):
            yield {**batch, **more}


def pictures(plan: Plan, config: ConfigDict, mesh: Mesh, eval_step: Callable[..., Any]) -> PhaseInput:
    """The whole network on pictures."""

    times, size = LoadTimes(), config.input.batch_size
    unlabelled, more = plan.splits.unlabelled, config.input.unlabelled_ratio * size
    per_example = 1 if unlabelled is None else 1 + 2 * config.input.unlabelled_ratio  # pictures that are read

    def batches(step: int) -> Any:
        section = {key: value for key, value in config.input.items() if key not in _NOT_READ}
        known = {
            "preprocessing": plan.model.preprocessing,
            "channels": plan.model.in_channels,
            "seed": config.seed,
            "start_step": step,
            "times": times,
        }
        rows = process_rows(mesh, size)
        labelled = call(train_batches, section, "config.input", source=plan.splits.train, rows=rows, **known)
        if plan.strong is None or unlabelled is None:
            return labelled
        section = {key: value for key, value in section.items() if key not in ("sampler", "views", "augment")}
        section |= {"batch_size": more, "weak": plan.augment, "strong": plan.strong}
        rows = process_rows(mesh, more)
        return _beside(labelled, call(unlabelled_batches, section, "config.input", source=unlabelled, rows=rows, **known))

    def judge(params: Params, model_state: ModelState) -> Evaluation:
        return evaluate_pictures(eval_step, params, model_state, plan.val, plan, config, mesh)

    def advise(timing: Mapping[str, float]) -> str:
        return advice(times, per_example * timing["images_per_second"] / jax.process_count(), timing["wait_share"])

    return PhaseInput(plan.apply, plan.augment_batch, batches, judge, advise)


def features_of(plan: Plan, phase: Phase, config: ConfigDict) -> tuple[Features | None, str]:
    """The features a phase can read, and a line for the user: their size, or why the phase reads pictures."""
    if not config.features.cache:
        return None, ""
    prefix = frozen_prefix(plan.model, phase.mask, plan.params, plan.model_state)
    if prefix is None:
        return None, f"{phase.name} trains the first stage: it reads pictures, no features"
    if wanted(plan.loss):
        return None, f"{phase.name} reads pictures, no features: its loss asks for passes of its own over them"
    size, examples = config.input.batch_size, len(plan.splits.train)
    first, last = plan.order.passes(phase.start * size, phase.stop * size)
    views = views_of(plan.augment, at_most=config.features.views, first_epoch=first, last_epoch=last)
    shape = (views.count * examples + len(plan.val), *prefix.shape)
    dtype = config.features.dtype
    nbytes = int(np.prod(shape)) * (2 if dtype == "bfloat16" else 4)
    line = (
        f"features before '{prefix.stage}': {examples:,} examples x {views.count} view{'s' * (views.count > 1)} and "
        f"{len(plan.val):,} to validate x {'x'.join(f'{side:,}' for side in prefix.shape)} {dtype} = {nbytes / 1e6:,.1f} MB"
    )
    return Features(prefix, views, dtype), line


def features_folder(workdir: Path, config: ConfigDict) -> Path:
    """Where features are kept.

    Raises:
      JaxftError: that would be in a bucket.
    """
    folder = open_path(config.features.dir).expanduser() if config.features.dir else workdir / "features"
    if is_remote(folder):
        raise JaxftError(f"features are read like memory, which {folder} is not: set config.features.dir to a local folder")
    return folder


def phase_input(
    plan: Plan,
    phase: Phase,
    config: ConfigDict,
    mesh: Mesh,
    eval_step: Callable[..., Any],
    params: Params,
    model_state: ModelState,
    *,
    workdir: Path,
    say: Callable[[str], None],
    stop: Callable[[], bool],
    watch: Callable[[Callable[..., Any], str], Callable[..., Any]],
) -> PhaseInput | None:
    """Prepares what a phase reads; features that are not there yet are computed.

    Args:
      plan, phase, config, mesh: of the run.
      eval_step: of the whole network, jitted.
      params, model_state: as the phase begins, or goes on: its frozen stages are the same.
      workdir: holds the features, unless `config.features.dir` names another folder.
      say, stop: see `jaxft.features.fill`.
      watch: of `jaxft.compiling.Compiles`.

    Returns:
      None where `stop` cut the computing short.

    Raises:
      JaxftError, SaveError: see `jaxft.features`.
    """
    found, line = features_of(plan, phase, config)
    if found is None:
        say(line)
        return pictures(plan, config, mesh, eval_step)
    folder = features_folder(workdir, config)
    say(f"{line} in {folder}")
    prefix, seed, parts = found.prefix, config.seed, batch_parts(mesh)
    size = -(-config.input.eval_batch_size // parts) * parts

    run = prefix.run(DTYPES[found.dtype])
    look = functools.partial(plan.augment.images, seed=seed, size=plan.model.preprocessing.size)
    as_read = watch(jax.jit(lambda params, state, batch: run(params, state, batch["image"])), "the frozen stages")
    augmented = watch(jax.jit(lambda params, state, batch: run(params, state, look(batch))), "the augmented frozen stages")

    def kept(split: str, source: Source, views: Views) -> np.ndarray | None:
        rows = Rows(
            folder,
            f"{split}-{plan.model.name}-{prefix.stage}",
            about(
                prefix,
                params,
                model_state,
                source,
                views,
                split=split,
                seed=seed,
                data=plan.splits.fingerprint,
                scaled_decode=config.input.scaled_decode,
            ),
            shape=(views.count * len(source), *prefix.shape),
            dtype=found.dtype,
            block=size,
        )
        if rows.damaged:
            say(f"features: {rows.damaged} damaged blocks in {rows.path} are computed again")
        compute = augmented if views.augment is not None and views.augment.operations else as_read
        whole = fill(
            rows, lambda batch: compute(params, model_state, batch), source, views,
            model=plan.model, seed=seed, mesh=mesh, threads=config.input.threads, processes=config.input.processes,
            scaled_decode=config.input.scaled_decode, say=say, stop=stop,
        )  # fmt: skip
        return rows.read() if whole else None

    train = kept("train", plan.splits.train, found.views)
    val = None if train is None else kept("val", plan.val, Views())
    if train is None or val is None:
        return None
    batches = functools.partial(
        feature_batches,
        train,
        plan.splits.train,
        found.views,
        batch_size=config.input.batch_size,
        seed=seed,
        sampler=config.input.sampler,
    )
    step = watch(jax.jit(make_eval_step(prefix.rest, plan.eval_loss, metrics=plan.task.metrics)), "the evaluation step")
    put = functools.partial(put_batch, mesh=mesh)

    def judge(params: Params, model_state: ModelState) -> Evaluation:
        shown = feature_eval_batches(val, plan.val, batch_size=size)
        return evaluate(step, params, model_state, shown, expect=len(plan.val), put=put)

    return PhaseInput(prefix.rest, None, lambda start: batches(start_step=start), judge)
