"""Keras files are read by a process of its own, which has limits and is given up when it hangs."""

import contextlib
import os
import random
import subprocess
import sys
import time
import zlib

import h5py
import numpy as np
import pytest

from jaxft.errors import JaxftError
from jaxft.weights import h5, read

KERNEL = np.random.default_rng(0).standard_normal((3, 3, 4, 8)).astype(np.float32)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.h5"


def small(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("layers/conv/vars/0", data=KERNEL, compression="gzip")
        file.create_dataset("layers/conv/vars/1", data=KERNEL[0])
        file.attrs["keras_version"] = "3"


def test_the_process_has_limits_of_time_memory_and_what_it_writes(path, tmp_path):
    small(path)
    code = (
        h5._CHILD + "print([resource.getrlimit(getattr(resource, 'RLIMIT_' + name))[0] for name in ('CPU', 'CORE', 'FSIZE')])\n"
    )
    code += "print(resource.getrlimit(resource.RLIMIT_AS)[0])\n"
    command = [sys.executable, "-P", "-c", code, str(path), str(tmp_path / "out"), str(2 << 30), "7", str(1 << 20)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    limits, memory = done.stdout.splitlines()
    assert limits == str([7, 0, 2 << 20])
    if sys.platform == "linux":
        assert int(memory) == 2 << 30


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a file that never answers")
def test_a_file_that_hangs_is_given_up(path):
    os.mkfifo(path)
    start = time.monotonic()
    with pytest.raises(JaxftError, match="took more than 1 seconds"):
        h5.read_h5(path, seconds=1)
    assert time.monotonic() - start < 60


def test_a_busy_process_is_ended_by_its_own_limit(path, tmp_path):
    small(path)
    code = h5._CHILD.replace("import h5py", "while True: pass\nimport h5py")
    command = [sys.executable, "-P", "-c", code, str(path), str(tmp_path / "out"), str(2 << 30), "1", str(1 << 20)]
    assert subprocess.run(command, check=False, timeout=120).returncode < 0


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux")
def test_a_chunk_that_inflates_to_gigabytes_is_stopped_by_the_limit_of_memory(path):
    part = zlib.compressobj()
    block = part.compress(bytes(16 << 20)) + part.flush(zlib.Z_FULL_FLUSH)
    first, rest = block[:2], block[2:]
    with h5py.File(path, "w") as file:
        made = file.create_dataset("x", (1,), "u1", maxshape=(None,), chunks=((4 << 30) - 1,), compression="gzip")
        made.id.write_direct_chunk((0,), first + rest * 255)  # one element, in a chunk of four gigabytes
    assert path.stat().st_size < 8 << 20
    with pytest.raises(JaxftError, match="h5 file is damaged or cut short|ended in signal"):
        read(path)


@pytest.mark.parametrize("link", [h5py.ExternalLink("other.h5", "/x"), h5py.SoftLink("/nowhere"), h5py.SoftLink("/layers")])
def test_links_are_not_followed(link, path, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.create_dataset("x", data=np.ones(3, np.float32))
    small(path)
    with h5py.File(path, "a") as file:
        file["layers/elsewhere"] = link
    assert sorted(read(path)) == ["layers/conv/vars/0", "layers/conv/vars/1"]


def test_a_group_that_holds_itself_is_read_once(path):
    small(path)
    with h5py.File(path, "a") as file:
        file["layers/conv/again"] = file["layers"]
    assert len(read(path)) == 2


def test_a_virtual_dataset_is_refused(path, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.create_dataset("x", data=np.ones(3, np.float32))
    with h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout((3,), "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (3,))
        file.create_virtual_dataset("x", layout)
    with pytest.raises(JaxftError, match="x refers to other files"):
        read(path)


def test_a_filter_that_needs_a_plugin_is_refused(path):
    with h5py.File(path, "w") as file:
        made = file.create_dataset("x", (4,), "u1", chunks=(4,), compression=32015, allow_unknown_filter=True)
        made.id.write_direct_chunk((0,), b"data")
    with pytest.raises(JaxftError, match="h5 file is damaged or cut short"):
        read(path)


def test_damage_ends_in_an_error_or_in_plain_arrays(path):
    small(path)
    data, rng = path.read_bytes(), random.Random(0)
    for number in range(20):
        mutant = bytearray(data)
        for _ in range(rng.choice((1, 4, 16))):
            mutant[rng.randrange(8, len(data))] = rng.choice((0, 255, rng.randrange(256)))
        path.write_bytes(mutant[: rng.randrange(9, len(data))] if number % 5 == 0 else mutant)
        found = {}
        with contextlib.suppress(JaxftError):
            found = read(path)
        assert all(type(value) is np.ndarray for value in found.values())
