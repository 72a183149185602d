"""Grain's side of `loading.py`: Pillow and a random resized crop in its loaders. Imports nothing of jaxft.

A work is {"variant", "root", "records", "examples", "batch", "size", "threads"}. A variant is "files" or "records", '+' how
they are loaded: "threads=N", a `MapDataset` that N threads read, its batches made of what they have read; "batches=N", each of
N threads makes whole batches; "workers=N", a `DataLoader` of N processes. Where N is "default" it is Grain's own.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grain
import numpy as np
from absl import flags
from fed import check, fed
from PIL import Image, features
from serve import Missing, Prepared, serve

flags.FLAGS.mark_as_parsed()  # Grain's worker processes read flags; this script is no absl app


class Files:
    """Pictures of class folders: (the file's bytes, the class)."""

    def __init__(self, root: str) -> None:
        classes = sorted(folder for folder in Path(root).iterdir() if folder.is_dir())
        self._files = [(file, label) for label, folder in enumerate(classes) for file in sorted(folder.iterdir())]

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: Any) -> tuple[bytes, int]:
        file, label = self._files[index]
        return file.read_bytes(), label


class Unpack(grain.transforms.Map):
    """A record of `jaxft.data.records`: the picture follows a header of the length that the first four bytes say."""

    def map(self, element: bytes) -> tuple[bytes, int]:
        (length,) = struct.unpack_from("<I", element)
        return element[4 + length :], 0


class ReadCrop(grain.transforms.RandomMap):
    """The random resized crop of Szegedy et al. (2015) as torchvision draws it, decoded and resized by Pillow."""

    def __init__(self, size: int) -> None:
        self._size = size

    def random_map(self, element: tuple[bytes, int], rng: np.random.Generator) -> dict[str, Any]:
        content, label = element
        image = Image.open(io.BytesIO(content)).convert("RGB")
        resized = image.resize(
            (self._size, self._size), Image.Resampling.BILINEAR, box=self._box(image.width, image.height, rng)
        )
        return {"image": np.asarray(resized), "label": label}

    @staticmethod
    def _box(width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        for _ in range(10):
            area = width * height * rng.uniform(0.08, 1.0)
            ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
                return left, top, left + w, top + h
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        return left, top, left + side, top + side


def _mapped(source: Any, unpack: list[Any], work: dict[str, Any], how: str, threads: str) -> Any:
    pictures = grain.MapDataset.source(source).seed(0).shuffle()
    for one in unpack:
        pictures = pictures.map(one)
    pictures = pictures.random_map(ReadCrop(work["size"])).repeat(None)
    if how == "threads":
        given = grain.ReadOptions() if threads == "default" else grain.ReadOptions(num_threads=int(threads))
        return pictures.to_iter_dataset(given).batch(work["batch"])
    # As many batches ahead as are in the making: the default, 500, would be gigabytes.
    return pictures.batch(work["batch"]).to_iter_dataset(grain.ReadOptions(int(threads), 2 * int(threads)))


def _loader(source: Any, unpack: list[Any], work: dict[str, Any], workers: int) -> grain.DataLoader:
    return grain.DataLoader(
        data_source=source,
        sampler=grain.samplers.IndexSampler(len(source), grain.sharding.NoSharding(), shuffle=True, num_epochs=None, seed=0),
        operations=[*unpack, ReadCrop(work["size"]), grain.transforms.Batch(work["batch"], drop_remainder=True)],
        worker_count=workers,
    )


def prepare(work: dict[str, Any]) -> Prepared:
    kind, _, loading = work["variant"].partition("+")
    how, _, number = loading.partition("=")
    if kind not in ("files", "records") or how not in ("threads", "batches", "workers"):
        raise Missing(f"grain has no variant '{work['variant']}'")
    shards = sorted(str(file) for file in Path(work["records"]).glob("*.array_record"))
    source = Files(work["root"]) if kind == "files" else grain.sources.ArrayRecordDataSource(shards)
    check(len(source), work)
    unpack = [Unpack()] if kind == "records" else []

    @contextlib.contextmanager
    def batches() -> Iterator[Iterator[Any]]:
        if how == "workers":
            yield iter(_loader(source, unpack, work, int(number)))  # it ends its processes when it is let go
            return
        opened = iter(_mapped(source, unpack, work, how, number))
        try:
            yield opened
        finally:
            opened.close()

    return fed(batches, work["batch"])


def versions() -> dict[str, str]:
    found = {name: importlib.metadata.version(name) for name in ("grain", "array_record", "pillow")}
    return {**found, "libjpeg_turbo": str(features.version("libjpeg_turbo"))}


if __name__ == "__main__":
    serve(prepare, versions=versions)
