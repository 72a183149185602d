"""Writes weights: safetensors, in jaxft's names or another library's."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
import safetensors.numpy

from jaxft import tree
from jaxft.errors import JaxftError
from jaxft.models import build, pretrained_records
from jaxft.weights import tables
from jaxft.weights.load import load_model
from jaxft.weights.readers import read_with_metadata
from jaxft.weights.rules import export
from jaxft.weights.sources import fetch, file_sha256


@dataclasses.dataclass(frozen=True)
class ConvertReport:
    """What was written."""

    path: Path
    tensors: int
    bytes: int
    convention: str

    def __str__(self) -> str:
        return f"{self.path}: {self.tensors} tensors, {self.bytes / 1e6:.1f} MB, {self.convention}"


def save_safetensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file, whole or not at all.

    Raises:
      JaxftError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
        os.close(handle)
        try:
            # safetensors wants rows in C order.
            contiguous = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
            safetensors.numpy.save_file(contiguous, name, metadata=dict(metadata or {}))
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise JaxftError(f"cannot write {path}: {error.strerror or error}") from error


def convert_file(
    src: str | Path, dst: str | Path, *, model: str | None = None, to: str = "jaxft", overwrite: bool = False
) -> ConvertReport:
    """Converts a weight file to safetensors.

    Args:
      src: any file or source that `jaxft.weights.fetch` and `read` take.
      dst: the file to write.
      model: the architecture. None changes only the container: names and layouts stay.
      to: whose names and layouts: "jaxft", or a convention of the architecture ("torchvision", "timm", ...).
      overwrite: replace `dst` if it is there.

    Raises:
      JaxftError: a source that does not fit the architecture, an unknown convention, a file that exists.
    """
    dst = Path(dst)
    if dst.exists() and not overwrite:
        raise JaxftError(f"{dst} exists: give another name, or overwrite it with --overwrite")
    path = fetch(src)
    tensors, metadata = read_with_metadata(path)
    metadata = {**metadata, "source_sha256": file_sha256(path)}
    if model is None:
        if to != "jaxft":
            raise JaxftError(f"names of '{to}' need the architecture: --model=NAME")
        convention = "names as in the source"
    else:
        tensors, metadata = _renamed(path, tensors, metadata, model, to)
        convention = f"names of {to}"
    save_safetensors(dst, tensors, metadata)
    return ConvertReport(dst, len(tensors), dst.stat().st_size, convention)


def _renamed(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: dict[str, str], model: str, to: str
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    if to != "jaxft":
        tables.rules(model, to)  # an unknown convention is said before any work
    num_classes = _num_classes(tensors, model)
    loaded = load_model(model, num_classes, str(path))
    if loaded.report.new:
        raise JaxftError(f"{path} has no head of {model}: {', '.join(loaded.report.new)} are missing")
    variables = {"params": loaded.params, **loaded.model_state}
    named = tree.flatten(variables) if to == "jaxft" else export(variables, tables.rules(model, to))
    digest = metadata["source_sha256"]
    known = next((record for record in pretrained_records(model) if digest.startswith(record.sha256)), None)
    preprocessing = known.preprocessing if known else loaded.model.preprocessing
    return named, {
        **metadata,
        "model": model,
        "num_classes": str(num_classes),
        "preprocessing": json.dumps(dataclasses.asdict(preprocessing)),
        **({"licence": known.licence} if known and known.licence else {}),
    }


def _num_classes(tensors: Mapping[str, np.ndarray], model: str) -> int:
    """The width of the file's own head: the length of its last bias."""
    network = build(model)
    params, _ = jax.eval_shape(network.init, jax.random.key(0))
    heads = [f"params/{path}" for path in tree.paths(params) if network.stage_of(path) == "head" and path.endswith("bias")]
    for convention in tables.conventions(model):
        names = {rule.src for rule in tables.rules(model, convention) if rule.dst in heads}
        for name in names & tensors.keys():
            return int(tensors[name].shape[0])
    for head in heads:
        if head in tensors:
            return int(tensors[head].shape[0])
    raise JaxftError(f"the file has no head of {model}: it is of another architecture, or lacks its last layer")
