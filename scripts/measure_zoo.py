"""Writes jaxft/models/figures.json: parameters, and operations for one image at its own size, of every network.

From shapes alone; nothing is compiled or run:

JAX_PLATFORMS=cpu python scripts/measure_zoo.py [--only "resnet*"]
"""

import argparse
import fnmatch
import json
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxft import tree
from jaxft.explain.program import live_ops
from jaxft.models import build, list_models
from jaxft.ops.lowering import plain_ops


def figures(name: str) -> dict[str, int]:
    model = build(name)
    side = model.preprocessing.size
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    variables = model.variables
    state = {key: value for key, value in variables.items() if key != "params"}
    with plain_ops():
        program = jax.make_jaxpr(lambda p, s, x: model.apply(p, s, x)[0]["logits"])(variables["params"], state, image)
    return {"parameters": tree.count(variables["params"]), "flops": sum(op.flops for op in live_ops(program)), "size": side}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="*", help="glob over networks; the figures of the others stay")
    pattern = parser.parse_args().only
    path = Path(__file__).parent.parent / "jaxft" / "models" / "figures.json"
    known = json.loads(path.read_text())
    found = {name: figures(name) if fnmatch.fnmatchcase(name, pattern) else known[name] for name in list_models()}
    lines = [f'"{name}": {json.dumps(own)}' for name, own in found.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
