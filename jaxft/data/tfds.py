"""Data sets of tensorflow-datasets, read as array_record through `tfds.data_source`: TensorFlow is never imported."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxft.data.sources import Source
from jaxft.errors import JaxftError, near

#: jaxft's own builders, by name: importing the module registers them.
OWN = {"jaxft_digits": "jaxft.data.digits"}


class Records:
    """Examples of a tfds split by position. Pictures come decoded, as uint8 [H, W, C]."""

    def __init__(self, records: Any, split: str, chosen: np.ndarray, labels: np.ndarray):
        self._records = records
        self._split = split
        self._chosen = chosen
        self.labels = labels
        self.groups: Sequence[str] | None = None

    @property
    def names(self) -> Sequence[str]:
        return [f"{self._split}/{number}" for number in self._chosen]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Any]:
        return np.asarray(self._records[int(self._chosen[index])]["image"]), self.labels[index]

    def subset(self, chosen: Sequence[int] | np.ndarray) -> Records:
        chosen = np.asarray(chosen, int)
        return Records(self._records, self._split, self._chosen[chosen], self.labels[chosen])


def _open_split(builder: Any, split: str) -> Records:
    """Opens a split; its labels are read first, without decoding a picture."""
    import tensorflow_datasets as tfds

    skip = {name: tfds.decode.SkipDecoding() for name in builder.info.features if name == "image"}
    bare = builder.as_data_source(split=split, decoders=skip)
    labels = np.array([int(bare[number]["label"]) for number in range(len(bare))], np.int32)
    return Records(builder.as_data_source(split=split), split, np.arange(len(labels)), labels)


def read_tfds(name: str, *, data_dir: str | None) -> tuple[dict[str, Source], tuple[str, ...]]:
    """Opens `NAME[:CONFIG]`, preparing it first where that needs no TensorFlow.

    Args:
      name: of the data set.
      data_dir: tfds' folder; None is tfds' own (`TFDS_DATA_DIR`, or `~/tensorflow_datasets`).

    Raises:
      JaxftError: no such data set, one without image and label, or one that only TensorFlow can prepare.
    """
    logging.getLogger("absl").setLevel(logging.ERROR)
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()

    dataset, _, config = name.partition(":")
    if dataset in OWN:
        importlib.import_module(OWN[dataset])
    full = f"{dataset}/{config}" if config else dataset
    folder = data_dir or os.environ.get("TFDS_DATA_DIR")
    try:
        builder = tfds.builder(full, data_dir=folder, file_format="array_record")
    except tfds.core.registered.DatasetNotFoundError as error:
        known = [*OWN, *tfds.list_builders(with_community_datasets=False)]
        raise JaxftError(f"tensorflow-datasets has no '{full}'{near(dataset, known)}") from error
    except (ValueError, ImportError) as error:
        raise JaxftError(f"tfds:{full}: {str(error).splitlines()[0][:200]}") from error
    if not _prepared(builder):
        _prepare(builder, full, in_own=dataset in OWN)
    features = builder.info.features
    label = features["label"] if "label" in features else None  # noqa: SIM401 - it has no get
    if "image" not in features or not isinstance(label, tfds.features.ClassLabel):
        raise JaxftError(f"tfds:{full} has {', '.join(features)}; an 'image' and a 'label' of one class are needed")
    splits: dict[str, Source] = {
        _SPLIT_NAMES.get(split, split): _open_split(builder, split)
        for split in builder.info.splits
        if split in ("train", "validation", "test")
    }
    return splits, tuple(label.names)


_SPLIT_NAMES = {"validation": "val"}


def _prepared(builder: Any) -> bool:
    return Path(builder.data_path).is_dir() and any(Path(builder.data_path).iterdir())


def _prepare(builder: Any, full: str, *, in_own: bool) -> None:
    try:
        builder.download_and_prepare(file_format="array_record")
    except JaxftError:
        raise
    except Exception as error:
        if in_own:
            raise
        raise JaxftError(
            f"tfds:{full} could not be prepared without TensorFlow ({type(error).__name__}: "
            f"{str(error).splitlines()[0][:120]}): prepare it once, on any machine, with pip install 'jaxft[tf]' and "
            f"tfds build {full} --file_format=array_record --data_dir={builder._data_dir_root}"
        ) from error
