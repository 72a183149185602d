"""Keras `.h5` files through h5py, in a process of its own with limits: a damaged file can hang or crash HDF5."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np

from jaxft.errors import JaxftError

SECONDS = 120
_FLOOR = 1 << 30  # bytes of address space that Python, NumPy and HDF5 may take beside the file's arrays
#: A compressed file may hold this many times its size: weights hardly compress, and unwritten arrays cost nothing.
MAX_RATIO = 50
#: In a `.keras` file.
KERAS_WEIGHTS = "model.weights.h5"

#: Run by the child: every numeric dataset of the file into an npz, by number, and the paths into a JSON list.
_CHILD = """
import json, sys
path, out, memory, seconds, most = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
import resource
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (2 * most, 2 * most))
if sys.platform == "linux":
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
import h5py, numpy as np
names, arrays, total = [], {}, 0
def visit(name, node):
    global total
    if not isinstance(node, h5py.Dataset) or node.dtype.kind not in "fiubc" or node.shape is None:
        return
    if node.external or node.is_virtual:
        sys.exit(f"{name} refers to other files")
    total += node.nbytes
    if total > most:
        sys.exit(f"its arrays would take more than {most} bytes")
    arrays[str(len(names))] = node[()]
    names.append(name)
with h5py.File(path, "r") as file:
    file.visititems(visit)
np.savez(out + ".npz", **arrays)
with open(out + ".json", "w") as file:
    json.dump(names, file)
"""


def read_keras(path: Path) -> dict[str, np.ndarray]:
    """The numeric datasets of the weights in a `.keras` file, which is a zip archive; nothing else in it is read.

    Raises:
      JaxftError: damaged, cut short, or beyond the limits of time and memory.
    """
    most = MAX_RATIO * path.stat().st_size
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
        if archive.getinfo(KERAS_WEIGHTS).file_size > most:
            raise JaxftError(f"its weights would take more than {most} bytes")
        try:
            return read_h5(Path(archive.extract(KERAS_WEIGHTS, folder)))
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise JaxftError(f"the zip archive is damaged or cut short ({str(error)[:100]})") from error


def read_h5(path: Path, *, seconds: float = SECONDS) -> dict[str, np.ndarray]:
    """All numeric datasets of a Keras 3 `.weights.h5` or a legacy Keras `.h5`, by their path in the file.

    Raises:
      JaxftError: damaged, cut short, or beyond the limits of time and memory.
    """
    most = max(64 << 20, MAX_RATIO * path.stat().st_size)
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "found")
        limits = [str(_FLOOR + 3 * most), str(math.ceil(seconds)), str(most)]
        # -P: a numpy.py in the current folder is not NumPy. One thread: each reserves address space.
        command = [sys.executable, "-P", "-c", _CHILD, str(path), out, *limits]
        # Nor does HDF5 load a plugin that a file asks for.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "HDF5_PLUGIN_PRELOAD": "::"}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=seconds, check=False, env=environment
            )
        except subprocess.TimeoutExpired as error:
            raise JaxftError(f"reading the h5 file took more than {seconds} seconds: it is damaged") from error
        if done.returncode < 0:
            raise JaxftError(f"reading the h5 file ended in signal {-done.returncode}: it is damaged")
        if done.returncode > 0:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise JaxftError(f"the h5 file is damaged or cut short ({reason[:120]})")
        names = json.loads(Path(out + ".json").read_text())
        with np.load(out + ".npz", allow_pickle=False) as arrays:
            return {name: arrays[str(number)] for number, name in enumerate(names)}
