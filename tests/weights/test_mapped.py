"""Weights are read where they lie: a large file costs no second copy, and what is done with its arrays is right."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from pth_bytes import checkpoint, make_legacy, make_zip, state_dict, tensor

from jaxft.weights import convert_file, read, save_safetensors
from jaxft.weights.mapped import map_file

PART = 4 << 20
PARTS = 16


def write(kind, path, parts):
    """Named float32 arrays as a file of a kind."""
    raws = {str(number): part.tobytes() for number, part in enumerate(parts)}
    pickled = state_dict({key: tensor((len(raw) // 4,), (1,), key=key, numel=len(raw) // 4) for key, raw in raws.items()})
    if kind == "zip":
        path.write_bytes(make_zip(pickled, raws))
    elif kind == "legacy":
        path.write_bytes(make_legacy(pickled, raws))
    elif kind == "safetensors":
        save_safetensors(path, {key: np.frombuffer(raw, np.float32) for key, raw in raws.items()})
    else:
        with path.open("wb") as file:
            np.savez(file, **{key: np.frombuffer(raw, np.float32) for key, raw in raws.items()})


KINDS = ["zip", "legacy", "safetensors", "npz"]
GROWTH = """
import re, sys
import numpy as np
from jaxft.weights import read
def private():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) << 10
read(sys.argv[1])
before = private()
found = read(sys.argv[2])
after = private()
total = sum(float(value.sum(dtype=np.float64)) for value in found.values())
print(after - before, private() - before, total)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what memory is private")
@pytest.mark.parametrize("kind", KINDS)
def test_a_large_file_costs_no_second_copy(kind, tmp_path):
    write(kind, tmp_path / "small", [np.ones(4, np.float32)])
    write(kind, tmp_path / "large", [np.full(PART // 4, number + 1, np.float32) for number in range(PARTS)])
    command = [sys.executable, "-c", GROWTH, str(tmp_path / "small"), str(tmp_path / "large")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    read_growth, summed_growth, total = done.stdout.split()
    assert float(total) == PART // 4 * sum(range(1, PARTS + 1))
    assert int(read_growth) < 0.1 * PART * PARTS
    assert int(summed_growth) < 0.1 * PART * PARTS


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_cannot_be_written_to(kind, tmp_path):
    write(kind, tmp_path / "x", [np.ones(4, np.float32)])
    with pytest.raises(ValueError, match="read-only"):
        read(tmp_path / "x")["0"][0] = 2


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_outlive_a_file_that_is_replaced_or_removed(kind, tmp_path):
    path = tmp_path / "x"
    write(kind, path, [np.arange(2000, dtype=np.float32)])
    found = read(path)
    write(kind, tmp_path / "y", [np.zeros(2000, np.float32)])
    os.replace(tmp_path / "y", path)
    np.testing.assert_array_equal(found["0"], np.arange(2000))
    np.testing.assert_array_equal(read(path)["0"], np.zeros(2000))
    path.unlink()
    np.testing.assert_array_equal(found["0"], np.arange(2000))


def test_weights_are_saved_over_the_file_they_are_views_of(tmp_path):
    path = tmp_path / "x.safetensors"
    write("safetensors", path, [np.arange(3000, dtype=np.float32), np.ones(5, np.float32)])
    found = read(path)
    save_safetensors(path, {"turned": found["0"].reshape(30, 100).T, "1": found["1"]})
    np.testing.assert_array_equal(read(path)["turned"], np.arange(3000).reshape(30, 100).T)
    convert_file(path, path, overwrite=True)
    np.testing.assert_array_equal(read(path)["turned"], np.arange(3000).reshape(30, 100).T)
    np.testing.assert_array_equal(found["0"], np.arange(3000))


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("DoubleStorage", np.float64),
        ("FloatStorage", np.float32),
        ("BFloat16Storage", ml_dtypes.bfloat16),
        ("LongStorage", np.int64),
        ("ComplexFloatStorage", np.complex64),
        ("BoolStorage", np.bool_),
    ],
)
def test_storages_that_lie_askew_in_a_legacy_file_are_right_in_numpy_and_in_jax(kind, dtype, tmp_path):
    want = (np.arange(60) % 7).astype(dtype)
    strided, size = checkpoint(tensor((5, 3), (12, 2), offset=1, numel=60, kind=kind)), np.dtype(dtype).itemsize
    aligned = set()
    for pad in range(8):  # bytes before the storages, in a string that nothing refers to
        data = strided[:-1] + b"U" + bytes([pad]) + bytes(pad) + b"0."
        path = tmp_path / f"{pad}.pth"
        path.write_bytes(make_legacy(data, {"0": want.tobytes()}, itemsize=size))
        found = read(path)["x"]
        aligned.add(found.flags.aligned)
        expected = np.lib.stride_tricks.as_strided(want[1:], (5, 3), (12 * size, 2 * size))
        np.testing.assert_array_equal(found, expected)
        assert found.tobytes() == expected.tobytes()
        with jax.enable_x64(True):
            np.testing.assert_array_equal(jnp.asarray(found), expected)
            np.testing.assert_array_equal(jax.device_put(found) == found, True)
    assert aligned == ({True} if size == 1 else {True, False})


def test_a_jitted_function_that_is_given_the_arrays_does_not_write_into_the_file(tmp_path):
    places = set()
    for pad in range(0, 64, 8):  # one of them lies so that jax may take it without a copy
        path = tmp_path / f"{pad}.safetensors"
        save_safetensors(path, {"x": np.arange(1 << 16, dtype=np.float32)}, {"pad": "x" * pad})
        before, found = path.read_bytes(), read(path)["x"]
        places.add(found.ctypes.data % 64)
        for given in (jnp.asarray(found), jax.device_put(found), found):
            result = jax.jit(lambda x: x + 1, donate_argnums=0)(given)
            np.testing.assert_array_equal(result, np.arange(1 << 16) + 1)
        np.testing.assert_array_equal(found, np.arange(1 << 16))
        assert path.read_bytes() == before
    assert 0 in places


def test_an_empty_file_maps_to_nothing(tmp_path):
    (tmp_path / "x").touch()
    assert map_file(tmp_path / "x") == b""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="a file without a size, which cannot be mapped")
def test_a_file_that_cannot_be_mapped_is_read():
    assert b"VmPeak" in map_file(Path("/proc/self/status")).tobytes()
