"""Writes tests/weights/fixtures: checkpoints of many kinds as torch saves them, and the tensors torch sees in them.

Needs torch, in an environment of its own:  python scripts/make_pth_fixtures.py
"""

import argparse
import collections
import enum
import io
import json
import pathlib
import zipfile

import numpy as np
import torch
from torch import nn

FOLDER = pathlib.Path(__file__).parent.parent / "tests" / "weights" / "fixtures"


class Phase(enum.Enum):
    WARM_UP = 1


class Marked(torch.Tensor):
    """A tensor subclass: saved through `_rebuild_from_type_v2`."""


def small_net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))


def trained():
    """A network, its optimizer and its averaged copy after two steps."""
    net = small_net()
    optimizer = torch.optim.AdamW(net.parameters(), 0.01)
    average = torch.optim.swa_utils.AveragedModel(net)
    for _ in range(2):
        net(torch.randn(2, 3, 5, 5)).square().mean().backward()
        optimizer.step()
        average.update_parameters(net)
    return net, optimizer, average


def random(*shape, dtype=torch.float32):
    return torch.randn(*shape).to(dtype)


def dtypes():
    ints = {
        name: torch.randint(0, 100, (3, 2)).to(getattr(torch, name)) for name in ("int8", "int16", "int32", "int64", "uint8")
    }
    unsigned = {name: torch.randint(0, 100, (4,)).to(getattr(torch, name)) for name in ("uint16", "uint32", "uint64")}
    floats = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
    return {
        "float64": {"x": random(2, 3, dtype=torch.float64)},
        "float16": {"x": random(2, 3, dtype=torch.float16)},
        "bfloat16": {"x": random(4, 3, dtype=torch.bfloat16), "y": random(2, dtype=torch.float32)},
        "integers": {**ints, "bool": torch.tensor([True, False, True])},
        "unsigned": unsigned,
        "float8": {name: random(5, 3, dtype=getattr(torch, name)) for name in floats},
        "complex": {"x": torch.randn(2, 2, dtype=torch.complex64), "y": torch.randn(3, dtype=torch.complex128)},
        "special": {"x": torch.tensor([float("nan"), float("inf"), -0.0, 1e-45])},
    }


def shapes():
    base = torch.arange(60, dtype=torch.float32).reshape(5, 12)
    tied = random(3, 4)
    return {
        "scalars": {"x": torch.tensor(1.5), "n": torch.tensor(7)},
        "empty": {"x": torch.zeros(0), "y": torch.zeros(3, 0, 2)},
        "views": {"rows": base[1:3], "columns": base[:, 2:9:3], "offset": base.reshape(-1)[17:], "base": base},
        "transposed": {"x": random(2, 3, 4).permute(2, 0, 1), "y": random(3, 5).T},
        "channels_last": {"x": random(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)},
        "expanded": {"x": torch.arange(3.0).reshape(3, 1).expand(3, 4)},
        "odd_strides": {"x": torch.arange(6.0).as_strided((1, 3), (1_000_000_007, 2))},
        "tied": {"embedding": tied, "output": tied, "turned": tied.T},
    }


def wrapped():
    """Tensors that are more than tensors."""
    parameters = collections.OrderedDict(weight=nn.Parameter(random(2, 3)), frozen=nn.Parameter(random(2), False))
    marked = nn.Parameter(random(2, 2))
    marked.no_weight_decay = True
    noted = random(3)
    noted.note = "kept apart"
    hooked = random(2).requires_grad_()
    return {
        "parameters": parameters,
        "parameter_with_state": {"x": marked},
        "tensor_with_attribute": {"x": noted},
        "tensor_subclass": {"x": random(2).as_subclass(Marked)},
        "requires_grad": {"x": hooked},
    }


def training():
    """Checkpoints of training scripts: the tensors, and much beside them."""
    net, optimizer, average = trained()
    state = net.state_dict()
    counts = collections.defaultdict(list, seen=[1, 2])
    beside = {
        "epoch": 3,
        "optimizer": optimizer.state_dict(),
        "args": argparse.Namespace(lr=0.1, data=pathlib.PurePosixPath("data"), betas=(0.9, 0.999)),
    }
    numpy = {
        "best": np.float64(0.91),
        "step": np.int64(17),
        "rate": np.float32(0.5),
        "flag": np.bool_(True),
        "history": np.arange(5.0),
        "big": np.frombuffer(b"\x00\x01\x00\x02", ">i2")[0],
    }
    odd = {
        "counts": counts,
        "phase": Phase.WARM_UP,
        "device": torch.device("cpu"),
        "dtype": torch.bfloat16,
        "size": torch.Size([2, 3]),
        "names": {"a", "b"},
        "fixed": frozenset({1, 2}),
        "keys": {(1, "a"): None, 2.5: b"bytes", None: 1 << 40, torch.float16: True, Phase.WARM_UP: 1, np.int64(4): 2},
        "complex": 1 + 2j,
        "long": 1 << 100,
        "raw": bytearray(b"raw"),
    }
    prefixed = {f"module.{name}": value for name, value in state.items()}
    return {
        "plain": state,
        "training": {"state_dict": state, **beside},
        "averaged": {"model": state, "model_ema": average.module.state_dict(), **beside},
        "lightning": {"state_dict": {f"model.{name}": value for name, value in state.items()}, "hyper_parameters": odd},
        "data_parallel": prefixed,
        "compiled_parallel": {"model": {f"_orig_mod.{name}": value for name, value in prefixed.items()}},
        "numpy_beside": {"state_dict": state, **numpy},
        "odd_beside": {"state_dict": state, **odd},
        "in_two": {"net": {"model_state_dict": state}},
    }


def refused():
    """What has no named tensors, or not such as can be read: the reader says so."""
    net = small_net()
    quantized = torch.quantize_per_tensor(random(3), 0.1, 0, torch.qint8)
    return {
        "refused_whole_model": net,
        "refused_list": [random(2), random(3)],
        "refused_tensor": random(2),
        "refused_sparse": {"x": random(2), "y": torch.eye(3).to_sparse()},
        "refused_quantized": {"x": quantized},
        "refused_no_tensors": {"epoch": 1, "args": argparse.Namespace(lr=0.1)},
    }


def zipped_again(source, compression, leave_out="\0"):
    """The same archive with its members stored or compressed anew, without those whose name contains `leave_out`."""
    out = io.BytesIO()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(out, "w", compression) as new:
        for info in old.infolist():
            if leave_out not in info.filename:
                new.writestr(zipfile.ZipInfo(info.filename), old.read(info), compression)
    return out.getvalue()


def seen(path):
    """Tensor name -> dtype, shape and bytes (hex, C order) as torch loads them, wherever the state dict lies."""
    found = torch.load(path, weights_only=False)
    for key in ("model_ema", "state_dict", "model", "net", "model_state_dict"):
        if isinstance(found.get(key), dict):
            found = found[key]
    return {name: described(value) for name, value in found.items() if isinstance(value, torch.Tensor)}


def optimizer_seen(path):
    """Name of a parameter's state (`0.exp_avg`) -> dtype, shape and bytes as torch loads them."""
    states = torch.load(path, weights_only=False)["optimizer"]["state"]
    values = {f"{number}.{name}": value for number, state in states.items() for name, value in state.items()}
    return {name: described(value) for name, value in values.items()}


def described(value):
    plain = value.detach().as_subclass(torch.Tensor).contiguous()
    raw = plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    return {"dtype": str(plain.dtype).removeprefix("torch."), "shape": list(plain.shape), "hex": raw.hex()}


def write_optimizers():
    kinds = ("training", "averaged", "legacy_training")
    states = {kind: optimizer_seen(FOLDER / f"{kind}.pth") for kind in kinds}
    (FOLDER / "expected_optimizers.json").write_text(json.dumps(states, indent=0) + "\n")


def main():
    torch.manual_seed(0)
    FOLDER.mkdir(parents=True, exist_ok=True)
    kinds = {**dtypes(), **shapes(), **wrapped(), **training()}
    legacy = (
        "plain",
        "bfloat16",
        "integers",
        "views",
        "tied",
        "transposed",
        "training",
        "parameters",
        "scalars",
        "empty",
    )
    files = {name: (value, {}) for name, value in {**kinds, **refused()}.items()}
    files |= {f"legacy_{name}": (kinds[name], {"_use_new_zipfile_serialization": False}) for name in legacy}
    files |= {f"protocol{number}": (kinds["odd_beside"], {"pickle_protocol": number}) for number in (3, 4, 5)}
    expected = {}
    for name, (value, options) in files.items():
        path = FOLDER / f"{name}.pth"
        torch.save(value, path, **options)
        if not name.startswith("refused"):
            expected[name] = seen(path)
    script = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), script)
    # Without its code, which carries the path of the torch that wrote it.
    script = zipped_again(script, zipfile.ZIP_STORED, "/code/")
    (FOLDER / "refused_torchscript.pth").write_bytes(script)
    compressed = zipped_again(FOLDER / "plain.pth", zipfile.ZIP_DEFLATED)
    (FOLDER / "refused_compressed.pth").write_bytes(compressed)
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=0) + "\n")
    write_optimizers()
    total = sum(path.stat().st_size for path in FOLDER.iterdir())
    print(f"torch {torch.__version__}: {len(files) + 2} files, {total / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
