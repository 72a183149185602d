"""Measures what private memory grows by while a large weight file is read, and after all of it was summed; Linux only.

python scripts/read_memory.py --megabytes 512
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "weights")]
from pth_bytes import make_legacy, make_zip, state_dict, tensor  # noqa: E402

from jaxft.weights import read, save_safetensors  # noqa: E402

PARTS = 32


def write(kind, path, megabytes):
    """A file of `PARTS` float32 tensors."""
    count = (megabytes << 20) // 4 // PARTS
    parts = {str(number): np.full(count, number + 1, np.float32) for number in range(PARTS)}
    pickled = state_dict({key: tensor((count,), (1,), key=key, numel=count) for key in parts})
    if kind == "npz":
        with path.open("wb") as file:
            np.savez(file, **parts)
    elif kind == "safetensors":
        save_safetensors(path, parts)
    else:
        make = make_zip if kind == "pth (zip)" else make_legacy
        path.write_bytes(make(pickled, {key: part.tobytes() for key, part in parts.items()}))


def private():
    """Bytes of memory that are this process's own and no file's."""
    return int(re.search(r"RssAnon:\s+(\d+)", pathlib.Path("/proc/self/status").read_text())[1]) << 10


def measure(small, large):
    """In a process of its own: what the memory grows by, after a small file of the same kind was read."""
    read(small)
    before = private()
    found = read(large)
    after = private()
    total = sum(float(part.sum(dtype=np.float64)) for part in found.values())
    print(f"{(after - before) / 1e6:.2f} {(private() - before) / 1e6:.2f} {total:.0f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--measure", nargs=2, type=pathlib.Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure(*given.measure)
        return
    print("kind          MB read  MB summed")
    for kind in ("pth (zip)", "pth (legacy)", "safetensors", "npz"):
        with tempfile.TemporaryDirectory() as folder:
            paths = [pathlib.Path(folder) / name for name in ("small", "large")]
            write(kind, paths[0], 1)
            write(kind, paths[1], given.megabytes)
            command = [sys.executable, __file__, "--measure", *map(str, paths)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            grown, summed, _ = done.stdout.split()
            print(f"{kind:12}  {grown:>7}  {summed:>9}")


if __name__ == "__main__":
    main()
