"""Running a network over a whole split: every example once, padding dropped, counted."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from jaxft.data import Source, eval_batches
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
    """

    metrics: dict[str, float]
    logits: np.ndarray
    labels: np.ndarray
    index: np.ndarray
    count: int


def evaluate(
    eval_step: Callable[..., Any],
    params: Params,
    model_state: ModelState,
    batches: Iterable[HostBatch],
    *,
    expect: int,
    put: Callable[[HostBatch], Batch] = dict,  # type: ignore[assignment]
) -> Evaluation:
    """Evaluates every example of a split exactly once.

    Args:
      eval_step: from `jaxft.train.make_eval_step`, jitted.
      params, model_state: of the network.
      batches: `image`, `label`, `mask`, `index`; rows with mask 0 are padding.
      expect: how many examples there are.
      put: places a batch on the devices.

    Raises:
      RuntimeError: an example was seen twice or not at all: the input is broken, and no figure is given.
    """
    collected: list[Any] = []
    logits: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    index: list[np.ndarray] = []

    def run(batch: HostBatch) -> Any:
        placed = put(batch)
        metrics, per_example = eval_step(params, model_state, placed)
        # In several processes each has its own rows; all are to know all.
        if jax.process_count() > 1:
            rows = {key: placed[key] for key in ("mask", "label", "index")}
            return metrics, multihost_utils.process_allgather({**rows, "logits": per_example["logits"]}, tiled=True)
        return metrics, {**batch, "logits": per_example["logits"]}

    for metrics, rows in one_late(run(batch) for batch in batches):
        collected.append(jax.device_get(metrics))
        real = np.asarray(rows["mask"]) > 0
        for kept, key in ((logits, "logits"), (labels, "label"), (index, "index")):
            kept.append(np.asarray(rows[key])[real])
    seen = np.concatenate(index) if index else np.zeros(0, np.int32)
    if len(seen) != expect or len(np.unique(seen)) != expect:
        raise RuntimeError(f"evaluated {len(np.unique(seen))} of {expect} examples, {len(seen)} in all")
    order = np.argsort(seen, kind="stable")
    return Evaluation(
        metrics=to_floats(merge(collected)),
        logits=np.concatenate(logits)[order],
        labels=np.concatenate(labels)[order],
        index=seen[order],
        count=len(seen),
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
