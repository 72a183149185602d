"""Batches on the host: decoded and resized in threads or processes, a few ahead, uint8 until the device."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence

import numpy as np

from jaxft.augment import Augment, parse
from jaxft.data.feeding import LoadTimes
from jaxft.data.loading import Loader, Shown
from jaxft.data.order import Order, batch_positions
from jaxft.data.sources import Source
from jaxft.decoding.reading import Reading
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
    views: int = 1,
    augment: str | Augment = "crop_flip",
    channels: int = 3,
    rows: Sequence[int] | np.ndarray | None = None,
    threads: int | None = None,
    processes: int = 0,
    prefetch: int = 2,
    scaled_decode: bool = True,
    times: LoadTimes | None = None,
) -> Generator[HostBatch, None, None]:
    """Endless training batches from step `start_step` on: a function of (seed, step) alone; see `jaxft.data.order`.

    Of `augment` only the window is taken here, while a picture is read; the rest is `Augment.batch`, for the training step.

    Args:
      source: the examples.
      preprocessing: size and interpolation.
      batch_size: of the global batch; each process yields its rows.
      seed: of order and augmentation.
      start_step: any step, at no cost.
      sampler: "shuffle", every example once an epoch; "balanced" or "sqrt", by class: see `jaxft.data.order.Order`.
      views: of each example in a batch, which holds batch_size / views examples: see `Order.rows_at`.
      augment: a list of augmentations; see `jaxft.augment.parse`.
      channels: of the network's input.
      rows: of the global batch that are yielded; None is all. See `jaxft.parallel.process_rows`.
      threads: that decode; None is one a core, at most 16; 0 is none: a batch is made when it is asked for. Batches do not
        depend on it.
      processes: that decode in the place of threads, for more cores than Python's lock lets threads use. They get files and
        bytes; pictures that are pixels already are resized in threads.
      prefetch: batches made ahead.
      scaled_decode: JPEGs much larger than what is wanted are decoded at a fraction of their size.
      times: is told how long pictures take.

    Yields:
      `image` uint8 [b, S, S, C] (S of `augment.window.side`), `label`, `mask` f32 [b] of ones, `index` int32 [b], and `shown`
      int32 [b]: how often the example was shown before. Close the generator to end its threads.

    Raises:
      JaxftError: no examples, a batch size that does not fit, a sampler that does not, a picture that cannot be read.
    """
    if not len(source):
        raise JaxftError("there are no training examples")
    if batch_size < 1:
        raise JaxftError(f"the batch size is {batch_size}")
    if start_step < 0:
        raise JaxftError(f"start_step is {start_step}")
    window = parse(augment).window
    order = Order(seed, len(source), source.labels, sampler, views)
    chosen = _rows(rows, batch_size)
    order.rows_at(start_step, batch_size, chosen[:1])  # what does not fit is said now

    reading = Reading(preprocessing, channels, window, seed, scaled_decode)
    loader = Loader(source, reading, threads, processes, times or LoadTimes())

    def batches() -> Generator[HostBatch, None, None]:
        for items, pictures in loader.ahead(order.batches(start_step, batch_size, chosen), prefetch):
            batch = _batch(source, [index for _, index in items], pictures, len(items))
            yield {**batch, "shown": _shown(items)}

    # Checked before, and not when the first batch is asked for: a generator's body runs late.
    return batches()


def eval_batches(
    source: Source,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    channels: int = 3,
    rows: Sequence[int] | np.ndarray | None = None,
    threads: int | None = None,
    processes: int = 0,
    prefetch: int = 2,
) -> Generator[HostBatch, None, None]:
    """Every example once, in order; the last batch is filled up with rows of mask 0, so all have one shape.

    With `rows` a process yields its rows of every global batch; all processes yield the same number of batches.

    Args and yields: as `train_batches`, but for `shown`.

    Raises:
      JaxftError: a batch size that does not fit, a picture that cannot be read.
    """
    if batch_size < 1:
        raise JaxftError(f"the batch size is {batch_size}")
    size, chosen = len(source), _rows(rows, batch_size)

    loader = Loader(source, Reading(preprocessing, channels), threads, processes)

    def plan() -> Iterator[list[Shown]]:
        for step in range(-(-size // batch_size)):
            positions = batch_positions(step, batch_size, chosen)
            # A process whose share is all padding still decodes one example to fill its rows with.
            yield [(0, position) for position in positions if position < size] or [(0, 0)]

    def batches() -> Generator[HostBatch, None, None]:
        for step, (items, pictures) in enumerate(loader.ahead(plan(), prefetch)):
            positions = batch_positions(step, batch_size, chosen)
            yield _batch(
                source,
                [index for _, index in items],
                pictures,
                len(chosen),
                real=sum(position < size for position in positions),
            )

    return batches()


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
    processes: int = 0,
    prefetch: int = 2,
    scaled_decode: bool = True,
) -> Generator[HostBatch, None, None]:
    """The pictures of given rows: row `v * N + i` is example i as it looks in pass `first_epoch + v` of training.

    Args:
      rows: for each batch its rows, at least one and at most `batch_size`.
      batch_size: batches are filled up to it with their last picture.
      augment: None shows examples as an evaluation does, in every pass.
      source, preprocessing, seed, channels, threads, processes, prefetch, scaled_decode: as of `train_batches`.

    Yields:
      `image` uint8 [batch_size, S, S, C], `shown` and `index` int32 [batch_size].
    """
    window = None if augment is None else augment.window
    loader = Loader(source, Reading(preprocessing, channels, window, seed, scaled_decode), threads, processes)

    def plan() -> Iterator[list[Shown]]:
        for some in rows:
            yield [(first_epoch + row // len(source), row % len(source)) for row in some]

    for items, pictures in loader.ahead(plan(), prefetch):
        more = batch_size - len(items)
        numbers = np.array(items + [items[-1]] * more, np.int32)
        yield {"image": np.stack(pictures + [pictures[-1]] * more), "shown": numbers[:, 0], "index": numbers[:, 1]}


def view_batches(
    source: Source,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    views: int,
    augment: Augment,
    seed: int,
    channels: int = 3,
    rows: Sequence[int] | np.ndarray | None = None,
    threads: int | None = None,
    processes: int = 0,
    prefetch: int = 2,
    scaled_decode: bool = True,
) -> Generator[HostBatch, None, None]:
    """Every example in order, each as it looks in the first `views` times it is shown in training: the same at every call.

    The views of an example stand in one batch, as in `train_batches`; the last batch is filled up with rows of mask 0.

    Args and yields: as `train_batches`.

    Raises:
      JaxftError: a batch that holds no whole number of examples, a picture that cannot be read.
    """
    size, chosen = len(source), _rows(rows, batch_size)
    if batch_size < 1 or batch_size % views:
        raise JaxftError(f"a batch of {batch_size} does not hold a whole number of examples with {views} views each")
    count = batch_size // views
    loader = Loader(source, Reading(preprocessing, channels, augment.window, seed, scaled_decode), threads, processes)

    def due(step: int) -> list[tuple[int, int]]:
        return [(row // count, step * count + row % count) for row in chosen]

    def plan() -> Iterator[list[Shown]]:
        for step in range(-(-size // count)):
            yield [(view, example if example < size else 0) for view, example in due(step)]

    def batches() -> Generator[HostBatch, None, None]:
        for step, (items, pictures) in enumerate(loader.ahead(plan(), prefetch)):
            mask = np.array([example < size for _, example in due(step)], np.float32)
            batch = _batch(source, [index for _, index in items], pictures, len(items))
            yield {**batch, "mask": mask, "shown": _shown(items)}

    return batches()


def _shown(items: Sequence[Shown]) -> np.ndarray:
    return np.array([shown % 2**31 for shown, _ in items], np.int32)


def _rows(rows: Sequence[int] | np.ndarray | None, batch_size: int) -> Sequence[int]:
    return range(batch_size) if rows is None else [int(row) for row in rows]


def _batch(source: Source, numbers: list[int], pictures: list[np.ndarray], size: int, real: int | None = None) -> HostBatch:
    real, more = len(numbers) if real is None else real, size - len(numbers)
    index = np.array(numbers + [numbers[-1]] * more, np.int32)
    return {
        "image": np.stack(pictures + [pictures[-1]] * more),
        "label": source.labels[index],
        "mask": (np.arange(size) < real).astype(np.float32),
        "index": index,
    }
