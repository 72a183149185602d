"""The input pipeline as a piece of work, and the pictures it reads where the user gives none."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxft.bench.work import Work
from jaxft.data import Source, open_data, train_batches
from jaxft.models import build

INPUT = "input"


def open_source(data: str) -> Source:
    """All training examples of a data set (see `jaxft.data.open_data`), with classes as labels.

    Raises:
      JaxftError: whatever does not fit.
    """
    return open_data(data, val_fraction=0.0, test_fraction=0.0).train


def draw_photos(folder: Path, *, count: int = 256, seed: int = 0) -> Path:
    """Writes JPEGs of the sizes of photographs (about 500 by 375), in two class folders; returns the folder.

    Gradients with noise, at quality 90: about 90 kB a picture, near the 110 kB of ImageNet's, so decoding costs about the
    same.
    """
    rng = np.random.default_rng(seed)
    for number in range(count):
        height, width = (375, 500) if number % 4 else (500, 375)
        across, down = np.linspace(0, 1, width)[None, :, None], np.linspace(0, 1, height)[:, None, None]
        smooth = across * rng.uniform(0, 255, 3) + down * rng.uniform(0, 255, 3)
        noise = rng.normal(0, 20, (height, width, 3))
        picture = Image.fromarray(np.clip(smooth / 2 + noise, 0, 255).astype(np.uint8))
        file = folder / f"class{number % 2}" / f"{number:04d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.save(file, quality=90)
    return folder


def make_input_work(
    model: str,
    source: Source,
    *,
    batch: int,
    size: int | None = None,
    seed: int = 0,
    augment: str = "crop_flip",
    processes: int = 0,
) -> Work:
    """The training pipeline alone: reading, decoding, cropping and batching on the host, in threads, one a core.

    Args:
      model: whose preprocessing the pictures get.
      source: the examples.
      batch: images a call.
      size: pixels; None is the network's own.
      seed: of order and augmentation.
      augment: whose window is read.
      processes: that decode, in the place of threads.

    Raises:
      JaxftError: no such network, a batch or size that does not fit.
    """
    preprocessing = build(model, size=size).preprocessing
    given: dict[str, Any] = {"batch_size": batch, "seed": seed, "augment": augment, "processes": processes}
    train_batches(source, preprocessing, **given).close()

    def run(calls: int) -> float:
        # Begun before the clock and ended after it: the next to be timed shares the cores with nobody.
        batches = train_batches(source, preprocessing, **given)
        next(batches)
        start = time.perf_counter()
        for _ in range(calls):
            next(batches)
        seconds = time.perf_counter() - start
        batches.close()
        return seconds

    return Work(
        name=f"{model} {INPUT} {preprocessing.size}px batch {batch}",
        model=model,
        part=INPUT,
        batch=batch,
        size=preprocessing.size,
        run=run,
    )
