"""Checkpoints made by hand, so that they can be as wrong as need be; networks filled from a seed."""

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxft import tree
from jaxft.models import build
from jaxft.weights import export, names

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="session")
def fixtures():
    return FIXTURES


@pytest.fixture(scope="session")
def make_zip():
    """(pickle, storages by key, ...) -> bytes of a torch zip checkpoint."""

    def make(data, storages=None, *, extra=(), byteorder=b"little", compression=zipfile.ZIP_STORED):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", compression) as archive:
            archive.writestr("archive/data.pkl", data)
            archive.writestr("archive/byteorder", byteorder)
            for key, raw in (storages or {}).items():
                archive.writestr(f"archive/data/{key}", raw)
            for name, raw in extra:
                archive.writestr(name, raw)
        return out.getvalue()

    return make


@pytest.fixture(scope="session")
def make_legacy():
    """(pickle, storages by key, size of an element) -> bytes of a legacy torch checkpoint."""

    def make(data, storages=None, *, itemsize=4):
        storages = storages or {}
        head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]
        parts = [pickle.dumps(part, 2) for part in head] + [data, pickle.dumps(list(storages), 2)]
        parts += [struct.pack("<q", len(raw) // itemsize) + raw for raw in storages.values()]
        return b"".join(parts)

    return make


@pytest.fixture(scope="session")
def seeded():
    """(network, options) -> (model, variables): every leaf from a seed, without running the network's own init."""

    def make(name, num_classes=10, **options):
        model = build(name, num_classes, **options)
        params, state = jax.eval_shape(model.init, jax.random.key(0))
        rng = np.random.default_rng(0)
        fill = lambda path, leaf: rng.standard_normal(leaf.shape, np.float32)
        return model, tree.map_with_path(fill, {"params": params, **state})

    return make


@pytest.fixture(scope="session")
def resnet18(seeded):
    """A ResNet-18 of ten classes: (model, variables, the same under torch's names)."""
    model, variables = seeded("resnet18")
    return model, variables, export(variables, names.rules(model, "torchvision"))


@pytest.fixture(scope="session")
def expected():
    """What torch sees: fixture -> tensor -> dtype, shape, bytes as hex."""
    return json.loads((FIXTURES / "expected.json").read_text())
