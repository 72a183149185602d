"""Running a network over a whole split: every example once, padding dropped, counted."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from jaxft.augment import Augment
from jaxft.data import Source, eval_batches, view_batches
from jaxft.metrics import merge, to_floats
from jaxft.models import Model
from jaxft.parallel import batch_parts, one_late, process_rows, put_batch
from jaxft.typing import Batch, ModelState, Params

HostBatch = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a network said of a split.

    Attributes:
      metrics: figure -> value, merged from the evaluation step's collections.
      logits: [N, K] f32, in the order of `index`.
      labels: [N] or [N, K].
      index: [N], the examples' positions in the source, ascending.
      count: N, checked against what was expected.
      losses: [N] f32, of each example; of several views the mean.
    """

    metrics: dict[str, float]
    logits: np.ndarray
    labels: np.ndarray
    index: np.ndarray
    count: int
    losses: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.float32))


def evaluate(
    eval_step: Callable[..., Any],
    params: Params,
    model_state: ModelState,
    batches: Iterable[HostBatch],
    *,
    expect: int,
    views: int = 1,
    put: Callable[[HostBatch], Batch] = dict,  # type: ignore[assignment]
) -> Evaluation:
    """Evaluates every example of a split exactly once.

    Args:
      eval_step: from `jaxft.train.make_eval_step`, jitted.
      params, model_state: of the network.
      batches: `image`, `label`, `mask`, `index`; rows with mask 0 are padding.
      expect: how many examples there are.
      views: how often each is shown; `logits` are of the first.
      put: places a batch on the devices.

    Raises:
      RuntimeError: an example was seen more or less often: the input is broken, and no figure is given.
    """
    collected: list[Any] = []
    logits: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    index: list[np.ndarray] = []
    losses: list[np.ndarray] = []

    def run(batch: HostBatch) -> Any:
        placed = put(batch)
        metrics, per_example = eval_step(params, model_state, placed)
        # In several processes each has its own rows; all are to know all.
        if jax.process_count() > 1:
            rows = {key: placed[key] for key in ("mask", "label", "index")}
            return metrics, multihost_utils.process_allgather({**rows, **per_example}, tiled=True)
        return metrics, {**batch, **per_example}

    for metrics, rows in one_late(run(batch) for batch in batches):
        collected.append(jax.device_get(metrics))
        real = np.asarray(rows["mask"]) > 0
        for kept, key in ((logits, "logits"), (labels, "label"), (index, "index"), (losses, "loss")):
            kept.append(np.asarray(rows[key])[real])
    seen = np.concatenate(index) if index else np.zeros(0, np.int32)
    different, times = np.unique(seen, return_counts=True)
    if len(different) != expect or (times != views).any():
        raise RuntimeError(f"evaluated {len(different)} of {expect} examples, {len(seen)} in all")
    order = np.argsort(seen, kind="stable")
    first = order[::views]
    return Evaluation(
        metrics=to_floats(merge(collected)),
        logits=np.concatenate(logits)[first],
        labels=np.concatenate(labels)[first],
        index=seen[first],
        count=expect,
        losses=np.concatenate(losses)[order].reshape(-1, views).mean(-1),
    )


def evaluate_source(
    eval_step: Callable[..., Any],
    params: Params,
    model_state: ModelState,
    source: Source,
    model: Model,
    *,
    batch_size: int,
    mesh: Mesh,
    threads: int | None = None,
    processes: int = 0,
) -> Evaluation:
    """Evaluates a data source on all devices of `mesh`.

    Args:
      eval_step, params, model_state: see `evaluate`.
      source: the examples.
      model: its preprocessing and channels.
      batch_size: over all devices; rounded up to a multiple of them.
      mesh: from `jaxft.parallel.make_mesh`.
      threads, processes: that decode; see `jaxft.data.train_batches`.
    """
    size = -(-batch_size // batch_parts(mesh)) * batch_parts(mesh)
    batches = eval_batches(
        source,
        model.preprocessing,
        batch_size=size,
        channels=model.in_channels,
        rows=process_rows(mesh, size),
        threads=threads,
        processes=processes,
    )
    put = functools.partial(put_batch, mesh=mesh)
    return evaluate(eval_step, params, model_state, batches, expect=len(source), put=put)


def evaluate_views(
    eval_step: Callable[..., Any],
    params: Params,
    model_state: ModelState,
    source: Source,
    model: Model,
    *,
    batch_size: int,
    views: int,
    augment: Augment,
    seed: int,
    mesh: Mesh,
    threads: int | None = None,
    processes: int = 0,
    scaled_decode: bool = True,
) -> Evaluation:
    """Evaluates several views of each example, by a loss that compares them: the first looks of training, always the same.

    Args:
      eval_step, params, model_state, source, model, mesh, threads, processes: see `evaluate_source`; the step augments.
      batch_size: rows, views counted; rounded up to a multiple of the devices and the views.
      views, augment, seed, scaled_decode: see `jaxft.data.view_batches`.
    """
    unit = math.lcm(batch_parts(mesh), views)
    size = -(-batch_size // unit) * unit
    batches = view_batches(
        source, model.preprocessing, batch_size=size, views=views, augment=augment, seed=seed, channels=model.in_channels,
        rows=process_rows(mesh, size), threads=threads, processes=processes, scaled_decode=scaled_decode,
    )  # fmt: skip
    put = functools.partial(put_batch, mesh=mesh)
    return evaluate(eval_step, params, model_state, batches, expect=len(source), views=views, put=put)
