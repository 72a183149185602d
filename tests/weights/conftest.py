"""What the weight tests share: `pth_bytes.py` and its like by name, torch's fixtures, networks filled from a seed."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxft import tree
from jaxft.models import build
from jaxft.weights import export, names

sys.path.insert(0, str(Path(__file__).parent))

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="session")
def fixtures():
    return FIXTURES


@pytest.fixture(scope="session")
def seeded():
    """(network, options) -> (model, variables): every leaf from a seed, without running the network's own init."""

    def make(name, num_classes=10, **options):
        model = build(name, num_classes, **options)
        params, state = model.shapes
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
