"""Features of every example, as it looks in some epochs of training or in an evaluation: computed once, then read."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Generator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxft.augment import Augment
from jaxft.data import Arrays, Files, Order, Source, Stored, row_batches
from jaxft.data.order import batch_positions
from jaxft.features.prefix import Prefix
from jaxft.features.rows import Rows
from jaxft.models import Model
from jaxft.parallel import put_batch
from jaxft.typing import Batch, ModelState, Params

HostBatch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Views:
    """How often and in which looks the examples are kept: row `v * N + i` is example i in pass `first_epoch + v` over it.

    A pass is an epoch, but under a sampler that draws by class; see `jaxft.data.order.Order`. `augment` None is what an
    evaluation shows.
    """

    count: int = 1
    first_epoch: int = 0
    augment: Augment | None = None

    def row(self, shown: int, example: int, examples: int) -> int:
        """The row to show in a pass: with fewer views than passes they come round again."""
        return (shown - self.first_epoch) % self.count * examples + example


def views_of(augment: Augment, *, at_most: int, first_epoch: int, last_epoch: int) -> Views:
    """The views a stretch of passes needs: one a pass, but never more than `at_most`, and one where nothing is random."""
    count = min(at_most, last_epoch - first_epoch + 1) if augment.random else 1
    return Views(count, first_epoch, augment)


def contents(source: Source) -> str:
    """sha256 that changes with the pictures, where their names alone need not: sizes and times of files, bytes
    of shards, pixels of arrays.

    A tensorflow-datasets split is told by its name and version.
    """
    digest = hashlib.sha256()
    if isinstance(source, Files):
        for name in source.names:
            found = (source.root / name).stat()
            digest.update(f"{name}\0{found.st_size}\0{found.st_mtime_ns}\0".encode())
    elif isinstance(source, Stored) and source.encoded:
        digest.update("\0".join(source.digests).encode())
    elif isinstance(source, Arrays | Stored):
        for index in range(len(source)):
            pixels = np.ascontiguousarray(source[index][0])
            digest.update(f"{pixels.dtype} {pixels.shape}\0".encode())
            digest.update(pixels.tobytes())
    return digest.hexdigest()


def fill(
    rows: Rows,
    compute: Callable[[Batch], jax.Array],
    source: Source,
    views: Views,
    *,
    model: Model,
    seed: int,
    mesh: Mesh,
    threads: int | None = None,
    processes: int = 0,
    scaled_decode: bool = True,
    say: Callable[[str], None],
    stop: Callable[[], bool],
) -> bool:
    """Computes the blocks that are missing, on all devices.

    Args:
      rows: where they are kept.
      compute: batch (`image` uint8 [B, S, S, C], `shown` and `index` int32 [B]) -> features [B, ...]; see `Prefix.run`.
      source, views, model, seed: the examples and how they look.
      mesh: devices.
      threads, processes, scaled_decode: see `jaxft.data.train_batches`.
      say: is told how far it is, now and then.
      stop: asked before every block; where it says True, what was done is recorded and kept.

    Returns:
      Whether all is there now.

    Raises:
      SaveError: the disk is full, or cannot be written. What was recorded before is used the next time.
    """
    missing = rows.missing
    if not missing:
        return True
    rows.reserve()
    batches = row_batches(
        source,
        model.preprocessing,
        (rows.rows_of(block) for block in missing),
        batch_size=-(-rows.block // mesh.size) * mesh.size,
        augment=views.augment,
        seed=seed,
        first_epoch=views.first_epoch,
        channels=model.in_channels,
        threads=threads,
        processes=processes,
        scaled_decode=scaled_decode,
    )
    start = saved = time.monotonic()
    try:
        for done, (block, batch) in enumerate(zip(missing, batches, strict=True)):
            if stop():
                return False
            found = compute(put_batch(batch, mesh))
            rows.write(block, np.asarray(found)[: len(rows.rows_of(block))])
            if time.monotonic() - saved > 10:
                rows.save()
                say(f"features: {done + 1} of {len(missing)} batches computed")
                saved = time.monotonic()
    finally:
        batches.close()
        rows.save()
    say(f"features: computed in {time.monotonic() - start:.1f} s")
    return True


def feature_batches(
    features: np.ndarray,
    source: Source,
    views: Views,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    sampler: str = "shuffle",
) -> Generator[HostBatch, None, None]:
    """What `jaxft.data.train_batches` yields, step for step, with features [b, ...] for `image`.

    Args:
      features: [views * N, ...]; see `Views`.
      source: for its labels.
      views: what the rows are.
      batch_size, seed, start_step, sampler: as of `train_batches`.
    """
    step, examples = start_step, len(source)
    order = Order(seed, examples, source.labels, sampler)
    while True:
        shown = [order.example_at(position) for position in batch_positions(step, batch_size, range(batch_size))]
        index = np.array([example for _, example in shown], np.int32)
        yield {
            "image": features[[views.row(number, example, examples) for number, example in shown]],
            "label": source.labels[index],
            "mask": np.ones(batch_size, np.float32),
            "index": index,
            "shown": np.array([number % 2**31 for number, _ in shown], np.int32),
        }
        step += 1


def feature_eval_batches(features: np.ndarray, source: Source, *, batch_size: int) -> Generator[HostBatch, None, None]:
    """What `jaxft.data.eval_batches` yields, with features [b, ...] of rows 0 to N for `image`."""
    for start in range(0, len(source), batch_size):
        place = np.arange(start, start + batch_size)
        index = np.minimum(place, len(source) - 1).astype(np.int32)
        yield {
            "image": features[index],
            "label": source.labels[index],
            "mask": (place < len(source)).astype(np.float32),
            "index": index,
        }


def about(
    prefix: Prefix,
    params: Params,
    model_state: ModelState,
    source: Source,
    views: Views,
    *,
    split: str,
    seed: int,
    data: str,
    scaled_decode: bool = True,
) -> dict[str, Any]:
    """All that the features depend on, as JSON data: the key under which they are kept.

    Args:
      split: its name; `data`: fingerprint of the data set.
      prefix, params, model_state: the network; of it only the frozen stages count.
      source, views, seed, scaled_decode: as of `fill`.
    """
    model = prefix.model
    random: Any = None
    if views.augment is not None:
        look = {"window": repr(views.augment.window), "then": str(views.augment), "scaled_decode": scaled_decode}
        random = {**look, "seed": seed, "first_epoch": views.first_epoch}
    preprocessing = dataclasses.asdict(model.preprocessing)
    adapter = [] if model.adapter is None else [repr(model.adapter)]
    return {
        "data": data,
        "split": split,
        "pictures": contents(source),
        "network": [model.name, model.in_channels, str(np.dtype(model.module.dtype)), prefix.stage, *adapter],
        "weights": prefix.digest(params, model_state),
        "preprocessing": {key: list(value) if isinstance(value, tuple) else value for key, value in preprocessing.items()},
        "augment": random,
    }
