"""Writes weights: safetensors, in jaxft's names or another library's, or the `.weights.h5` of Keras 3."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxft import tree
from jaxft.errors import JaxftError
from jaxft.models import build
from jaxft.weights import names
from jaxft.weights.fit import channels_of, head_of
from jaxft.weights.keras_files import save_weights_h5
from jaxft.weights.load import convention_of, load_model, named, table_for
from jaxft.weights.readers import read_with_metadata
from jaxft.weights.rules import export
from jaxft.weights.safetensors_file import save_safetensors
from jaxft.weights.sources import fetch, file_sha256

#: The convention of `.weights.h5` files.
KERAS = "keras3"


@dataclasses.dataclass(frozen=True)
class ConvertReport:
    """What was written."""

    path: Path
    tensors: int
    bytes: int
    convention: str

    def __str__(self) -> str:
        return f"{self.path}: {self.tensors} tensors, {self.bytes / 1e6:.1f} MB, {self.convention}"


def convert_file(
    src: str | Path, dst: str | Path, *, model: str | None = None, to: str = "jaxft", overwrite: bool = False
) -> ConvertReport:
    """Converts a weight file to safetensors, or to what Keras 3 loads.

    Args:
      src: any file or source that `jaxft.weights.fetch` and `read` take.
      dst: the file to write, `.safetensors`. Its metadata says the architecture, head, classes, preprocessing and
        licence where they are known, and the sha256 of the source. Or `.weights.h5` with `to="keras3"`.
      model: the architecture. None changes only the container: names and layouts stay.
      to: whose names and layouts: "jaxft", or a convention of the architecture ("torchvision", "timm", ...).
      overwrite: replace `dst` if it is there.

    Raises:
      JaxftError: a source that does not fit the architecture, an unknown convention, a file that exists.
    """
    dst = Path(dst)
    for_keras = dst.name.endswith(".weights.h5")
    if for_keras and (to != KERAS or model is None):
        raise JaxftError(f"'{dst}' is what Keras 3 loads: it needs the architecture, --model=NAME, and --to={KERAS}")
    if dst.suffix != ".safetensors" and not for_keras:
        raise JaxftError(f"'{dst}' does not end in .safetensors, which is what is written (or .weights.h5, for Keras 3)")
    if dst.exists() and not overwrite:
        raise JaxftError(f"{dst} exists: give another name, or overwrite it with --overwrite")
    path = fetch(src)
    tensors, metadata = read_with_metadata(path)
    around = {"source_unwrapped": metadata.pop("unwrapped")} if "unwrapped" in metadata else {}
    metadata = {**metadata, **around, "source_sha256": file_sha256(path)}
    if model is None:
        if to != "jaxft":
            raise JaxftError(f"names of '{to}' need the architecture: --model=NAME")
        convention = "names as in the source"
    else:
        tensors, metadata = _renamed(path, named(path, tensors), metadata, model, to)
        convention = f"names of {to}"
    if for_keras:
        if metadata["head"] != "linear":
            raise JaxftError(f"{path} has a head of two layers, which Keras' {model} has not: write .safetensors instead")
        save_weights_h5(dst, tensors)
    else:
        save_safetensors(dst, tensors, metadata)
    return ConvertReport(dst, len(tensors), dst.stat().st_size, convention)


def _renamed(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: dict[str, str], name: str, to: str
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    model = build(name)
    if to != "jaxft":
        names.rules(model, to)  # an unknown convention is said before any work
    table = table_for(model, convention_of(model, tensors))
    head, channels = head_of(model, tensors, table), channels_of(model, tensors, table)
    if head is None:
        raise JaxftError(f"{path} has no head of {name}: it is of another architecture, or lacks its last layer")
    loaded = load_model(name, head[1], str(path), head=head[0], in_channels=channels[2] if channels else 3)
    if loaded.report.new:
        raise JaxftError(f"{path} has no whole head of {name}: {', '.join(loaded.report.new)} do not fit")
    variables = {"params": loaded.params, **loaded.model_state}
    found = tree.flatten(variables) if to == "jaxft" else export(variables, names.rules(loaded.model, to))
    return found, {
        **metadata,
        "model": name,
        "head": head[0],
        "num_classes": str(head[1]),
        "in_channels": str(loaded.model.in_channels),
        "preprocessing": json.dumps(dataclasses.asdict(loaded.model.preprocessing)),
        **({"licence": loaded.report.licence} if loaded.report.licence else {}),
    }
