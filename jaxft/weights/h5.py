"""Keras `.h5` files through h5py, in a process of its own with limits: a damaged file can hang or crash the HDF5 library."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from jaxft.errors import JaxftError

SECONDS = 120
MEMORY = 16 << 30

#: Run by the child: every dataset of the file, under its path, into an npz.
_CHILD = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[3]),) * 2)
resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[4]),) * 2)
import h5py, numpy as np
found = {}
def visit(name, node):
    if isinstance(node, h5py.Dataset) and node.dtype.kind in "fiub":
        if node.external or node.is_virtual:
            raise SystemExit(name + " refers to other files")
        found[name] = node[()]
with h5py.File(sys.argv[1], "r") as file:
    file.visititems(visit)
np.savez(sys.argv[2], **found)
"""


def read_h5(path: Path) -> dict[str, np.ndarray]:
    """All numeric datasets of a Keras 3 `.weights.h5` or a legacy Keras `.h5`, by their path in the file.

    Raises:
      JaxftError: damaged, cut short, or beyond the limits of time and memory.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.npz"
        command = [sys.executable, "-c", _CHILD, str(path), str(out), str(MEMORY), str(SECONDS)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise JaxftError(f"reading the h5 file took more than {SECONDS} seconds: it is damaged") from error
        if done.returncode != 0 or not out.exists():
            lines = done.stderr.strip().splitlines()
            raise JaxftError(f"the h5 file is damaged or cut short ({lines[-1][:120] if lines else done.returncode})")
        with np.load(out, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
