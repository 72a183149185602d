"""Networks with the seeded weights, each made once for all tests of a file."""

import functools

import numpy as np
import seeded

from jaxft import tree
from jaxft.models import build
from jaxft.weights import convert, export
from jaxft.weights.names import rules


def torch_shapes(model, table):
    """Shapes of the foreign state dict, from the network's own: the inverse of each rule, on shapes."""
    # Zero-stride arrays: shapes cost no memory.
    empty = lambda leaf: np.broadcast_to(np.zeros((), np.float32), leaf.shape)
    found = export(tree.map_with_path(lambda _, leaf: empty(leaf), model.variables), table)
    return {name: value.shape for name, value in found.items()}


@functools.lru_cache(maxsize=2)
def seeded_network(name, convention, classes=10, seed=1, size=64, make=seeded.state_dict):
    """(model, params, model_state, table) with the weights of `make` loaded through the name table."""
    model = build(name, classes, dropout=0.0, size=size)
    table = rules(model, convention)
    weights = make(seed, torch_shapes(model, table))
    found = convert(weights, table, model.variables).tree
    return model, found["params"], {key: value for key, value in found.items() if key != "params"}, table
