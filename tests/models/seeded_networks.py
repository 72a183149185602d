"""Networks with the seeded weights, each made once for all tests of a file."""

import functools

import seeded

from jaxft.models import build
from jaxft.weights import convert
from jaxft.weights.names import foreign_shapes, rules


@functools.lru_cache(maxsize=2)
def seeded_network(name, convention, classes=10, seed=1, size=64, make=seeded.state_dict):
    """(model, params, model_state, table) with the weights of `make` loaded through the name table."""
    model = build(name, classes, dropout=0.0, size=size)
    table = rules(model, convention)
    weights = make(seed, foreign_shapes(model, convention))
    found = convert(weights, table, model.variables).tree
    return model, found["params"], {key: value for key, value in found.items() if key != "params"}, table
