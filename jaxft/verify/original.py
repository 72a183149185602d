"""What the original network computes: asked of a Python that has torch, or read from where it was kept."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxft.errors import JaxftError
from jaxft.files import open_whole
from jaxft.verify import seeded

#: Entries of a tensor that a reference file keeps.
KEPT = 64
_SCRIPT = Path(__file__).with_name("torch_side.py")


@dataclasses.dataclass(frozen=True)
class Theirs:
    """A tensor of the original, or what was kept of it.

    Attributes:
      shape: of the whole.
      indices: of the known entries, into the flattened tensor.
      values: f64 or f32 [N], those entries.
    """

    shape: tuple[int, ...]
    indices: np.ndarray | slice
    values: np.ndarray

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class Original:
    """What the original gave: `torch_side.py` explains the names of `tensors`, which are in the order they were made in."""

    tensors: Mapping[str, Theirs]
    versions: Mapping[str, str]

    def part(self, prefix: str) -> dict[str, Theirs]:
        """The tensors whose name has a prefix, without it."""
        return {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}


def kept_entries(key: str, size: int) -> np.ndarray:
    """Which entries of a tensor are kept, as a function of its name: int [min(size, KEPT)]."""
    if size <= KEPT:
        return np.arange(size)
    return seeded.generator(0, f"kept|{key}").integers(0, size, KEPT)


def write_reference(path: Path, original: Original, about: Mapping[str, Any]) -> None:
    """Keeps `KEPT` entries of each tensor in an `.npz`, for comparisons without torch; `about` says what they are of."""
    values = []
    for key, found in original.tensors.items():
        everything = np.empty(found.size)
        everything[found.indices] = found.values
        values.append(everything[kept_entries(key, found.size)])
    index = {key: list(found.shape) for key, found in original.tensors.items()}
    header = json.dumps({"about": dict(about), "versions": dict(original.versions), "tensors": index})
    with open_whole(path) as file:
        np.savez_compressed(file, header=np.array(header), values=np.concatenate(values).astype(np.float32))


def read_reference(path: Path) -> tuple[Original, dict[str, Any]]:
    """(what the original gave, what it is of).

    Raises:
      JaxftError: no such file, or none of `write_reference`.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            header, values = json.loads(str(file["header"])), file["values"]
        tensors, start = {}, 0
        for key, shape in header["tensors"].items():
            indices = kept_entries(key, math.prod(shape))
            tensors[key] = Theirs(tuple(shape), indices, values[start : start + indices.size])
            start += indices.size
        if start != values.size:
            raise ValueError(f"{values.size} entries for {start}")
        return Original(tensors, header["versions"]), header["about"]
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise JaxftError(f"{path} cannot be read as a reference ({type(error).__name__}: {str(error)[:100]})") from error


def ask_original(
    library: str,
    name: str,
    *,
    weights: Path,
    images: np.ndarray,
    labels: np.ndarray,
    arguments: Mapping[str, Any] | None = None,
    dtype: str = "float32",
    train: bool = True,
    files: Sequence[Path] = (),
    tag: str = "",
    python: str | None = None,
    seconds: float = 3600,
) -> Original:
    """Runs the original network, in a process of its own.

    Args:
      library, name, arguments: "torchvision" or "timm", the network there, and what it is made with.
      weights: a safetensors or `.pth` file in the library's names; loaded with `strict=True`.
      images: f32 [B, H, W, C], normalised.
      labels: int [B], for the batch in train mode.
      dtype: of inference, "float32" or "float64".
      train: whether that is run too.
      files: pictures that the original pipeline of the weights `tag` prepares.
      python: an interpreter that has torch and the library; None is this one.
      seconds: it may take.

    Raises:
      JaxftError: no torch there, a network or weights that do not fit, too slow.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder) / "images.npy", Path(folder) / "found.npz"
        np.save(given, images)
        request = {
            "library": library,
            "name": name,
            "arguments": dict(arguments or {}),
            "weights": str(weights.resolve()),
            "images": str(given),
            "dtype": dtype,
            "labels": [int(label) for label in labels],
            "train": train,
            "files": [str(Path(file).resolve()) for file in files],
            "tag": tag,
            "out": str(out),
        }
        (Path(folder) / "request.json").write_text(json.dumps(request))
        # -P: nothing is imported from the folder of the script or the current one.
        command = [python or sys.executable, "-P", str(_SCRIPT), str(Path(folder) / "request.json")]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds, check=False)
        except subprocess.TimeoutExpired as error:
            raise JaxftError(f"the original network took more than {seconds:.0f} seconds") from error
        except OSError as error:
            raise JaxftError(f"{python} cannot be run ({error.strerror}): give a Python that has torch") from error
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            advice = ""
            if "No module named" in reason:
                advice = ": give another Python with --torch-python, one that has torch, torchvision and timm"
            raise JaxftError(f"the original network could not be run ({reason[:300]}){advice}")
        with np.load(out, allow_pickle=False) as found:
            arrays = {key: found[key] for key in found.files}
    versions = json.loads(str(arrays.pop("versions")))
    return Original({key: Theirs(value.shape, slice(None), value.ravel()) for key, value in arrays.items()}, versions)
