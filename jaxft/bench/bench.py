"""Sweeps: the product of parts, batches and devices, timed in turns."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxft.bench.feed import INPUT, draw_photos, make_input_work, open_source
from jaxft.bench.machine import device_peak, peak, peak_rss
from jaxft.bench.timing import OutOfMemory, Timing, time_in_turns
from jaxft.bench.work import Work, check_work, make_work
from jaxft.data import Source
from jaxft.errors import JaxftError
from jaxft.heap import keep_heap

#: What may stand behind a training.
WITH_DATA, WITH_AUGMENT = "data", "augment"


@dataclasses.dataclass(frozen=True)
class Row:
    """One piece of work and what was found. What was not measured, or makes no sense for it, is None.

    Attributes:
      model, part, batch, size, dtype, devices: the work; `batch` is over all devices; the input pipeline uses no device.
      seconds: of each round, a call.
      median, q1, q3, best: seconds a call.
      images_per_second: by the median.
      efficiency: images/s a device over those of the same part's (and the same batch's, or batch a device's) first row.
      flops, flops_per_second: of the mathematics of a call, and by the median.
      peak, peak_origin, peak_share: FLOP/s of the devices, "published" or "measured matmul", and the share reached.
      compiled_bytes: memory of the compiled step on one device.
      peak_rss, device_peak: bytes; the process's and the first device's most so far, when this work was warm. They only grow:
        a command with one row gives that row's own.
      compile_seconds, compile_from: apart from all else; from "scratch" or the persistent "cache".
      wait_share: of its time (0..1) that a training that reads its data waited for them; the median of the rounds.
      error: why there are no figures, e.g. out of memory.
    """

    model: str
    part: str
    batch: int
    size: int | None
    dtype: str
    devices: int
    seconds: tuple[float, ...] = ()
    median: float | None = None
    q1: float | None = None
    q3: float | None = None
    best: float | None = None
    images_per_second: float | None = None
    efficiency: float | None = None
    flops: float | None = None
    flops_per_second: float | None = None
    peak: float | None = None
    peak_origin: str | None = None
    peak_share: float | None = None
    compiled_bytes: int | None = None
    peak_rss: int | None = None
    device_peak: int | None = None
    compile_seconds: float | None = None
    compile_from: str | None = None
    wait_share: float | None = None
    error: str | None = None


def run_bench(
    model: str,
    *,
    parts: Sequence[str] = ("train", "head", "eval", INPUT),
    batches: Sequence[int] = (8,),
    size: int | None = None,
    dtype: str = "float32",
    devices: Sequence[int] | None = None,
    per_device: bool = False,
    optimizer: str = "sgd",
    accum_steps: int = 1,
    augment: str = "crop_flip",
    data: str | None = None,
    processes: int = 0,
    rounds: int = 5,
    seconds: float = 2.0,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Times every part at every batch on every number of devices, in rounds that take turns.

    Args:
      model: a name of `jaxft.list_models()`.
      parts: "train", "eval", "input" (the pipeline alone), or what is trained ("head", "from:STAGE", ...); a training with
        "+data" behind it reads its data as a run does, one with "+augment" augments its images.
      batches: images a call, over all devices.
      size, dtype, optimizer, accum_steps, seed: as `make_work`.
      devices: numbers of devices; None is all present.
      per_device: `batches` are a device's (weak scaling) instead of all devices' (strong scaling).
      augment: what "+augment" does and "input" reads; see `jaxft.augment.parse`.
      data: what is read, as `config.data.source`; None reads JPEGs drawn into a temporary folder.
      processes: that decode what is read, in the place of threads.
      rounds, seconds: a piece of work is timed so many times, for at least so long.
      say: hears what is being done.

    Returns:
      A row for each, in the order asked; with `error` where one ran out of memory.

    Raises:
      JaxftError: whatever does not fit, before anything is compiled.
    """
    keep_heap()
    if rounds < 1 or not seconds > 0:
        raise JaxftError(f"rounds ({rounds}) and seconds ({seconds}) must be positive")
    counts = [jax.device_count()] if devices is None else list(devices)
    asked = list(dict.fromkeys(_asked(parts, batches, counts, per_device, accum_steps)))
    options: dict[str, Any] = {"size": size, "dtype": dtype, "optimizer": optimizer}
    for part, batch, count, accumulate in asked:
        if part != INPUT:
            bare, _, augmented = _split(part)
            check_work(
                model,
                bare,
                batch=batch,
                devices=count,
                accum_steps=accumulate,
                augment=augment if augmented else "none",
                **options,
            )
    if any(part != INPUT for part, *_ in asked):
        peak(dtype, 1)  # once a process: measured now, with nothing else in memory and no threads about
    rows: list[Row] = []
    works: list[tuple[int, Work]] = []
    with contextlib.ExitStack() as stack:
        source = None
        if any(part == INPUT or _split(part)[1] for part, *_ in asked):
            source = open_source(data or str(draw_photos(Path(stack.enter_context(tempfile.TemporaryDirectory())))))
        given = {**options, "seed": seed, "augment": augment, "processes": processes}
        for part, batch, count, accumulate in asked:
            row = Row(model, part, batch, size, dtype, count)
            try:
                work = _make(model, part, batch, count, accumulate, source, given)
                work.run(1)
            except OutOfMemory as error:
                row = dataclasses.replace(row, error=str(error))
            else:
                works.append((len(rows), work))
                row = _known(row, work)
            compiled = f", compiled in {row.compile_seconds:.1f} s" if row.compile_seconds else ""
            say(f"{part}, batch {batch}{f', devices {count}' if count else ''}: {row.error or 'ready' + compiled}")
            rows.append(row)
        timings = time_in_turns([work.run for _, work in works], rounds=rounds, seconds=seconds)
    for (place, work), timing in zip(works, timings, strict=True):
        rows[place] = _measured(rows[place], work, timing, rounds)
    return _with_efficiency(rows, per_device)


def _make(
    model: str, part: str, batch: int, count: int, accum_steps: int, source: Source | None, options: dict[str, Any]
) -> Work:
    if part == INPUT and source is not None:
        options = {key: options[key] for key in ("size", "seed", "augment", "processes")}
        return make_input_work(model, source, batch=batch, **options)
    bare, reads, augmented = _split(part)
    arguments = {"batch": batch, "devices": count, "accum_steps": accum_steps, **options}
    if not augmented:
        arguments["augment"] = "none"
    if not reads or source is None:
        return make_work(model, bare, **arguments)
    classes = int(source.labels.max()) + 1
    return make_work(model, bare, num_classes=classes, source=source, **arguments)


def _split(part: str) -> tuple[str, bool, bool]:
    """What is trained, whether it reads data, whether it augments."""
    bare, *more = part.split("+")
    return bare, WITH_DATA in more, WITH_AUGMENT in more


def _asked(
    parts: Sequence[str], batches: Sequence[int], counts: Sequence[int], per_device: bool, accum_steps: int
) -> list[tuple[str, int, int, int]]:
    """(part, global batch, devices, microbatches) of every row. The pipeline has one row a batch, of no device."""
    if not (parts and batches and counts):
        raise JaxftError("nothing to time: give at least one part, one batch and one number of devices")
    found = []
    for part, batch, count in itertools.product(parts, batches, counts):
        whole = batch * count if per_device else batch
        bare, *more = part.split("+")
        if bare in ("eval", INPUT) and more:
            raise JaxftError(f"'{part}' cannot be timed: only training is timed together with reading or augmenting its data")
        for other in more:
            if other not in (WITH_DATA, WITH_AUGMENT):
                raise JaxftError(f"'{part}' cannot be timed: behind a + stands {WITH_DATA} or {WITH_AUGMENT}, not '{other}'")
        found.append((part, whole, 0 if part == INPUT else count, 1 if bare in ("eval", INPUT) else accum_steps))
    return found


def _known(row: Row, work: Work) -> Row:
    """What is known of a piece of work before it is timed."""
    return dataclasses.replace(
        row,
        size=work.size,
        dtype=work.dtype,
        flops=work.flops,
        compiled_bytes=work.memory,
        peak_rss=peak_rss(),
        device_peak=device_peak(),
        compile_seconds=work.compile_seconds if work.compile_from else None,
        compile_from=work.compile_from or None,
    )


def _measured(row: Row, work: Work, timing: Timing | OutOfMemory, rounds: int) -> Row:
    if isinstance(timing, OutOfMemory):
        return dataclasses.replace(row, error=str(timing))
    q1, q3 = timing.quartiles
    row = dataclasses.replace(
        row, seconds=timing.rounds, median=timing.median, q1=q1, q3=q3, best=timing.best,
        images_per_second=work.images / timing.median,
        wait_share=Timing(tuple(work.wait_shares[-rounds:])).median if work.wait_shares else None,
    )  # fmt: skip
    if work.flops is None:
        return row
    most, rate = peak(work.dtype, work.devices), work.flops / timing.median
    return dataclasses.replace(
        row, flops_per_second=rate, peak=most.flops, peak_origin=most.origin, peak_share=rate / most.flops
    )


def _with_efficiency(rows: list[Row], per_device: bool) -> list[Row]:
    """Adds the scaling efficiency where the number of devices is swept."""
    if len({row.devices for row in rows if row.devices}) < 2:
        return rows
    first: dict[tuple[str, int], float] = {}
    found = []
    for row in rows:
        if row.devices and row.images_per_second:
            each = row.images_per_second / row.devices
            base = first.setdefault((row.part, row.batch // row.devices if per_device else row.batch), each)
            row = dataclasses.replace(row, efficiency=each / base)
        found.append(row)
    return found
