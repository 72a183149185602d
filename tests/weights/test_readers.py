"""Every format is known by its content; what is no weight file is said in one line."""

import json
import random
import zipfile

import h5py
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from jaxft.errors import JaxftError
from jaxft.weights import read, read_with_metadata, save_safetensors
from jaxft.weights.h5 import read_h5

RNG = np.random.default_rng(0)
TENSORS = {"b": RNG.standard_normal((2, 3)).astype(np.float32), "a": np.arange(4), "s": np.asarray(2.5, np.float16)}


def assert_same(found, want):
    assert list(found) == list(want)
    for name, value in want.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        assert found[name].tobytes() == value.tobytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.bin"  # a name that says nothing


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "it is a web page; the download failed"),
        (b"\n  <html lang='en'><head><title>Sign in</title>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "run 'git lfs pull'"),
        (b"\x00\x01\x02\x03 and so on, and so on", "neither a torch checkpoint nor safetensors, Keras h5 or npz"),
        (b"PK\x05\x06" + bytes(18), "neither a torch checkpoint"),
        (b"PK\x03\x04 and no more", "damaged or cut short"),
        (b"\x80", "malformed"),
        (b"\x89HDF\r\n\x1a\n", "h5 file is damaged or cut short"),
    ],
)
def test_what_is_no_weight_file_is_said_in_one_line(content, message, path):
    path.write_bytes(content)
    with pytest.raises(JaxftError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_said(tmp_path):
    for path in (tmp_path / "nothing.pth", tmp_path):
        with pytest.raises(JaxftError, match="no weight file"):
            read(path)


# npz


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_reads_as_written(save, path):
    with path.open("wb") as file:
        save(file, **TENSORS, label=np.asarray("text is left out"))
    assert_same(read(path), TENSORS)


def test_npz_with_objects_is_refused(path):
    with path.open("wb") as file:
        np.savez(file, x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(JaxftError, match="holds objects"):
        read(path)


def test_npz_with_bytes_that_were_bfloat16_is_refused_with_advice(path):
    with path.open("wb") as file:
        np.savez(file, x=np.zeros(3, ml_dtypes.bfloat16))
    with pytest.raises(JaxftError, match=r"'x' is of dtype .*save it as float32"):
        read(path)


def test_npz_that_inflates_a_thousandfold_is_refused(path):
    with path.open("wb") as file:
        np.savez_compressed(file, x=np.zeros(100 << 20, np.uint8))
    with pytest.raises(JaxftError, match="would inflate to 1048577"):
        read(path)


def test_npz_whose_header_claims_a_terabyte_is_refused(path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }"
    header += b" " * (-len(header) % 64 + 53) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(JaxftError, match="damaged"):
        read(path)


# safetensors


def test_safetensors_reads_what_the_library_writes_in_every_dtype(path):
    kinds = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?", ml_dtypes.bfloat16]
    tensors = {str(np.dtype(kind)): (np.arange(6) % 3).astype(kind).reshape(2, 3) for kind in kinds}
    tensors |= {"scalar": np.asarray(1.5), "empty": np.zeros((0, 3), np.float32)}
    safetensors.numpy.save_file(tensors, path, metadata={"note": "by the library"})
    found, metadata = read_with_metadata(path)
    assert_same({name: found[name] for name in tensors}, tensors)
    assert metadata == {"note": "by the library"}


def test_the_library_reads_what_is_saved_here(path):
    save_safetensors(path, TENSORS, {"note": "by us"})
    assert_same({name: safetensors.numpy.load_file(path)[name] for name in TENSORS}, TENSORS)
    with safetensors.safe_open(path, "numpy") as file:
        assert file.metadata() == {"note": "by us"}


def test_safetensors_keeps_every_dtype_order_and_layout(path):
    names = ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"]
    tensors = {name: np.arange(1, 6).astype(getattr(ml_dtypes, name)) for name in names}
    tensors |= {"complex": np.asarray([1 + 2j], np.complex64), "turned": np.arange(6.0).reshape(2, 3).T}
    tensors |= {"other byte order": np.arange(3).astype(">i4")}
    save_safetensors(path, tensors)
    tensors["other byte order"] = np.arange(3).astype("<i4")
    assert_same(read(path), tensors)


def test_the_same_tensors_give_the_same_bytes(tmp_path):
    for name, metadata in (("a", {"x": "1", "y": "2"}), ("b", {"y": "2", "x": "1"})):
        save_safetensors(tmp_path / name, TENSORS, metadata)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_dtype_that_safetensors_lacks_is_said(path):
    with pytest.raises(JaxftError, match="'x' is complex128, which safetensors does not have"):
        save_safetensors(path, {"x": np.zeros(1, np.complex128)})
    assert not path.exists()


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(JaxftError, match="cannot write"):
        save_safetensors(tmp_path / "file" / "x.safetensors", TENSORS)
    with pytest.raises(JaxftError, match="cannot write"):
        save_safetensors(tmp_path, TENSORS)  # a folder cannot be replaced
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def header(entries, data=b"", path=None):
    text = json.dumps(entries).encode() if isinstance(entries, dict) else entries
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(begin, end, shape, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"x": entry(0, 16, [4]), "y": entry(0, 16, [4])}, "overlap"),
        ({"x": entry(0, 8, [2]), "y": entry(12, 16, [1])}, "leave holes"),
        ({"x": entry(0, 20, [5])}, r"cut short \(16 of 20 bytes"),
        ({"x": entry(0, 12, [3])}, "4 bytes behind its last tensor"),
        ({"x": entry(0, 16, [5])}, "another size than its shape"),
        ({"x": entry(0, 16, [-4])}, "'x' is damaged"),
        ({"x": entry(0, 16, [4.0])}, "'x' is damaged"),
        ({"x": entry(0, 16, [True, 4])}, "'x' is damaged"),
        ({"x": entry(0, 16, [4], "F3")}, r"unknown dtype \(F3\)"),
        ({"x": entry(0, 16, [4], ["F32"])}, "unknown dtype"),
        ({"x": {"dtype": "F32"}}, "'x' is damaged"),
        ({"x": 5}, "'x' is damaged"),
        ({"x": entry(0, 0, [0, 1 << 40, 1 << 40]), "y": entry(0, 16, [4])}, "another size than its shape"),
        ({"__metadata__": [1], "x": entry(0, 16, [4])}, "metadata is damaged"),
        ({}, "16 bytes behind"),
        (b"{" * 50_000, "header is damaged"),
        (b"{ not json", "header is damaged"),
        (b'{"x": ' + b"9" * 5000 + b"}", "header is damaged"),
    ],
)
def test_a_damaged_safetensors_header_is_refused(entries, message, path):
    with pytest.raises(JaxftError, match=message):
        read(header(entries, bytes(16), path))


def test_a_safetensors_header_longer_than_the_file_is_refused(path):
    path.write_bytes((1 << 40).to_bytes(8, "little") + b'{"x":1}')
    with pytest.raises(JaxftError, match="cut short"):
        read(path)


# damage, format by format


@pytest.mark.parametrize("kind", ["npz", "compressed npz", "safetensors"])
def test_damage_anywhere_ends_in_an_error_or_in_plain_arrays(kind, path):
    if kind == "safetensors":
        save_safetensors(path, TENSORS, {"note": "whole"})
    else:
        with path.open("wb") as file:
            (np.savez if kind == "npz" else np.savez_compressed)(file, **TENSORS)
    data, rng, refused = path.read_bytes(), random.Random(kind), 0
    cuts = [data[:length] for length in rng.sample(range(len(data)), 60)]
    flips = []
    for _ in range(400):
        mutant = bytearray(data)
        mutant[rng.randrange(len(data))] = rng.randrange(256)
        flips.append(bytes(mutant))
    for number, mutant in enumerate(cuts + flips):
        path.write_bytes(mutant)
        try:
            found = read(path)
        except JaxftError:
            refused += 1
        else:
            assert number >= len(cuts), "a file cut short was read"
            assert all(isinstance(value, np.ndarray) for value in found.values())
    assert refused > len(cuts)


# h5


def keras3(path):
    with h5py.File(path, "w") as file:
        layer = file.create_group("layers/conv2d/vars")
        layer.create_dataset("0", data=TENSORS["b"])
        layer.create_dataset("1", data=np.zeros(3, np.float32))
        file.create_dataset("file", data=np.arange(3))  # a name that np.savez takes for itself
        file.create_dataset("label", data="text is left out")
        file["link"] = h5py.SoftLink("/nowhere")
        file["outside"] = h5py.ExternalLink("other.h5", "/x")


def test_a_keras_3_file_reads_by_path(path):
    keras3(path)
    found = read(path)
    assert_same({"x": found.pop("layers/conv2d/vars/0")}, {"x": TENSORS["b"]})
    assert sorted(found) == ["file", "layers/conv2d/vars/1"]


def test_a_legacy_keras_file_reads_by_path(path):
    with h5py.File(path, "w") as file:
        group = file.create_group("model_weights/conv1/conv1")
        group.create_dataset("kernel:0", data=TENSORS["b"], compression="gzip")
        group.create_dataset("bias:0", data=np.zeros(0, np.float32))
        file["model_weights"].attrs["layer_names"] = [b"conv1"]
    assert_same(
        read(path),
        {"model_weights/conv1/conv1/bias:0": np.zeros(0, "f4"), "model_weights/conv1/conv1/kernel:0": TENSORS["b"]},
    )


def test_an_h5_file_that_would_fill_memory_is_refused(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", shape=(1 << 38,), dtype="f4", chunks=(1 << 10,))  # never written: no bytes in the file
    with pytest.raises(JaxftError, match="would take more than"):
        read(path)


def test_an_h5_file_that_refers_to_other_files_is_refused(path, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(16))
    with h5py.File(path, "w") as file:
        file.create_dataset("x", shape=(4,), dtype="f4", external=[(str(tmp_path / "secret"), 0, 16)])
    with pytest.raises(JaxftError, match="x refers to other files"):
        read(path)


def test_a_damaged_h5_file_is_refused(path):
    keras3(path)
    data = path.read_bytes()
    for length in (len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(JaxftError, match="h5 file is damaged or cut short"):
            read(path)


def test_an_h5_file_that_takes_too_long_is_refused(path):
    keras3(path)
    with pytest.raises(JaxftError, match=r"took more than 0\.01 seconds"):
        read_h5(path, seconds=0.01)
