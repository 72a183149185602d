"""Batches on the host: decoded and transformed in threads, a few ahead, uint8 until the device."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from jaxft.data.decode import BadImage, decode
from jaxft.data.order import Order, augment_rng, batch_positions
from jaxft.data.sources import Source
from jaxft.data.transforms import Augment, eval_transform, find_augment, train_transform
from jaxft.errors import JaxftError
from jaxft.preprocessing import Preprocessing

HostBatch = dict[str, np.ndarray]


def train_batches(
    source: Source,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    sampler: str = "shuffle",
    augment: str | Augment = "crop_flip",
    channels: int = 3,
    rows: Sequence[int] | np.ndarray | None = None,
    threads: int | None = None,
    prefetch: int = 2,
) -> Generator[HostBatch, None, None]:
    """Endless training batches from step `start_step` on: a function of (seed, step) alone; see `jaxft.data.order`.

    Args:
      source: the examples.
      preprocessing: size and interpolation.
      batch_size: of the global batch; each process yields its rows.
      seed: of order and augmentation.
      start_step: any step, at no cost.
      sampler: "shuffle", every example once an epoch; "balanced" or "sqrt", by class: see `jaxft.data.order.Order`.
      augment: a name of `jaxft.data.AUGMENTS`, or an `Augment`.
      channels: of the network's input.
      rows: of the global batch that are yielded; None is all. See `jaxft.parallel.process_rows`.
      threads: that decode; None is one a core, at most 16. Batches do not depend on it.
      prefetch: batches made ahead.

    Yields:
      `image` uint8 [b, S, S, C], `label`, `mask` f32 [b] of ones, `index` int32 [b]. Close the generator to end its threads.

    Raises:
      JaxftError: no examples, a batch size that does not fit, a sampler that does not, a picture that cannot be read.
    """
    if not len(source):
        raise JaxftError("there are no training examples")
    if batch_size < 1:
        raise JaxftError(f"the batch size is {batch_size}")
    if start_step < 0:
        raise JaxftError(f"start_step is {start_step}")
    chosen = find_augment(augment)
    order = Order(seed, len(source), source.labels, sampler)
    # Checked here, not at the first batch: a generator's body runs late.
    return _train_batches(
        source, preprocessing, batch_size, order, start_step, chosen, channels, _rows(rows, batch_size), threads, prefetch
    )


def _train_batches(
    source: Source,
    preprocessing: Preprocessing,
    batch_size: int,
    order: Order,
    start_step: int,
    augment: Augment,
    channels: int,
    rows: Sequence[int],
    threads: int | None,
    prefetch: int,
) -> Generator[HostBatch, None, None]:
    def load(position: int) -> tuple[np.ndarray, int]:
        shown, index = order.example_at(position)
        pixels = _decoded(source, index, channels)
        return train_transform(pixels, preprocessing, augment_rng(order.seed, shown, index), augment), index

    def plan() -> Iterator[list[int]]:
        step = start_step
        while True:
            yield batch_positions(step, batch_size, rows)
            step += 1

    for examples in _ahead(load, plan(), threads, prefetch):
        yield _batch(source, examples, len(examples))


def eval_batches(
    source: Source,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    channels: int = 3,
    rows: Sequence[int] | np.ndarray | None = None,
    threads: int | None = None,
    prefetch: int = 2,
) -> Generator[HostBatch, None, None]:
    """Every example once, in order; the last batch is filled up with rows of mask 0, so all have one shape.

    With `rows` a process yields its rows of every global batch; all processes yield the same number of batches.

    Args and yields: as `train_batches`.

    Raises:
      JaxftError: a batch size that does not fit, a picture that cannot be read.
    """
    if batch_size < 1:
        raise JaxftError(f"the batch size is {batch_size}")
    return _eval_batches(source, preprocessing, batch_size, channels, _rows(rows, batch_size), threads, prefetch)


def _eval_batches(
    source: Source,
    preprocessing: Preprocessing,
    batch_size: int,
    channels: int,
    rows: Sequence[int],
    threads: int | None,
    prefetch: int,
) -> Generator[HostBatch, None, None]:
    size = len(source)

    def load(index: int) -> tuple[np.ndarray, int]:
        return eval_transform(_decoded(source, index, channels), preprocessing), index

    def plan() -> Iterator[list[int]]:
        for step in range(-(-size // batch_size)):
            positions = batch_positions(step, batch_size, rows)
            # A process whose share is all padding still decodes one example to fill its rows with.
            yield [position for position in positions if position < size] or [0]

    for step, examples in enumerate(_ahead(load, plan(), threads, prefetch)):
        positions = batch_positions(step, batch_size, rows)
        yield _batch(source, examples, len(rows), real=sum(position < size for position in positions))


def row_batches(
    source: Source,
    preprocessing: Preprocessing,
    rows: Iterable[Sequence[int]],
    *,
    batch_size: int,
    augment: Augment | None,
    seed: int = 0,
    first_epoch: int = 0,
    channels: int = 3,
    threads: int | None = None,
    prefetch: int = 2,
) -> Generator[np.ndarray, None, None]:
    """The pictures of given rows: row `v * N + i` is example i as it looks in pass `first_epoch + v` of training.

    Args:
      rows: for each batch its rows, at least one and at most `batch_size`.
      batch_size: batches are filled up to it with their last picture.
      augment: None shows examples as an evaluation does, in every epoch.
      source, preprocessing, seed, channels, threads, prefetch: as of `train_batches`.

    Yields:
      uint8 [batch_size, S, S, C].
    """

    def load(row: int) -> np.ndarray:
        view, index = divmod(row, len(source))
        pixels = _decoded(source, index, channels)
        if augment is None:
            return eval_transform(pixels, preprocessing)
        return train_transform(pixels, preprocessing, augment_rng(seed, first_epoch + view, index), augment)

    for pictures in _ahead(load, (list(some) for some in rows), threads, prefetch):
        yield np.stack(pictures + [pictures[-1]] * (batch_size - len(pictures)))


def _rows(rows: Sequence[int] | np.ndarray | None, batch_size: int) -> Sequence[int]:
    return range(batch_size) if rows is None else [int(row) for row in rows]


def _decoded(source: Source, index: int, channels: int) -> np.ndarray:
    try:
        return decode(source[index][0], channels)
    except BadImage as error:
        raise BadImage(f"{source.names[index]}: {error}") from error


def _batch(source: Source, examples: list[tuple[np.ndarray, int]], size: int, real: int | None = None) -> HostBatch:
    real = len(examples) if real is None else real
    filled = examples + [examples[-1]] * (size - len(examples))
    index = np.array([number for _, number in filled], np.int32)
    return {
        "image": np.stack([image for image, _ in filled]),
        "label": source.labels[index],
        "mask": (np.arange(size) < real).astype(np.float32),
        "index": index,
    }


def _ahead(
    load: Callable[[int], Any], plan: Iterator[list[int]], threads: int | None, prefetch: int
) -> Generator[list[Any], None, None]:
    """Loads the lists of `plan` in threads, `prefetch` of them ahead, and yields them in order.

    An error in a thread is raised where its batch is due. Closing the generator ends the threads.
    """
    workers = threads if threads is not None else min(16, os.cpu_count() or 1)
    if workers < 1:
        raise JaxftError(f"threads is {threads}: it must be at least 1")
    pool = ThreadPoolExecutor(workers, thread_name_prefix="jaxft-data")
    waiting: deque[list[Future[Any]]] = deque()
    try:
        for items in plan:
            waiting.append([pool.submit(load, item) for item in items])
            if len(waiting) > prefetch:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
