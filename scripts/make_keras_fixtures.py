"""Adds to tests/models/fixtures/zoo what the networks of keras.applications compute: the same figures, on the same seeded
weights, as scripts/make_zoo_fixtures.py takes from torch's libraries.

The names `keras` of tiny networks and of those in full size are made of Keras' own layers; `keras3` is what Keras' own saving
walks through.

Needs keras and jaxft in an environment of its own:
    python scripts/make_keras_fixtures.py [--only "keras_resnet*"]
"""

import argparse
import fnmatch
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

os.environ.update(KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
import jax
import jax.numpy as jnp
import keras
import numpy as np
from keras.src import applications
from keras.src.saving import saving_lib

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "models")]
import originals  # noqa: E402
import seeded  # noqa: E402

from jaxft.models import list_models  # noqa: E402
from jaxft.weights.keras_files import plain  # noqa: E402
from jaxft.weights.names import original_arguments, original_name  # noqa: E402

OUT = ROOT / "tests" / "models" / "fixtures" / "zoo"
LIBRARIES = SimpleNamespace(keras=keras, applications=applications)


def variables_of(network):
    """Plain name -> variable, of every layer and of the layers in it."""
    found = {}
    for layer in network._flatten_layers(include_self=False):
        for variable in layer._trainable_variables + layer._non_trainable_variables:
            found[f"{layer.name}/{layer.name}/{variable.name}"] = variable
    return plain(found)


def fresh(make, dtype="float32"):
    keras.backend.clear_session()  # automatic names begin anew
    keras.config.set_floatx(dtype)
    return make()


def load(network, seed=1):
    variables = variables_of(network)
    weights = seeded.state_dict(seed, {name: tuple(v.shape) for name, v in variables.items()})
    for name, variable in variables.items():
        if not name.startswith("normalization."):
            variable.assign(weights[name])
    return network, variables


def step(case, images, labels):
    """(loss, gradients, statistics) of a batch in train mode, in float64."""
    with jax.enable_x64(True):
        network, variables = load(fresh(lambda: case.theirs(LIBRARIES), "float64"))
        names = {id(variable): name for name, variable in variables.items()}
        trained, others = network.trainable_variables, network.non_trainable_variables
        wide = jnp.asarray(images, jnp.float64)

        def loss(values):
            logits, new = network.stateless_call(values, [v.value for v in others], wide, training=True)
            return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean(), new

        (value, new), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))([v.value for v in trained])
        grads = {names[id(variable)]: np.asarray(grad) for variable, grad in zip(trained, grads, strict=True)}
        found = {names[id(variable)]: np.asarray(x) for variable, x in zip(others, new, strict=True) if id(variable) in names}
        return float(value), grads, {name: found[name] for name in variables if name.endswith(originals.STATISTICS)}


def record(case):
    network, variables = load(fresh(lambda: case.theirs(LIBRARIES)))
    images = case.pixels(seeded.images(1, case.batch, case.size))
    labels = seeded.labels(1, case.batch, originals.CLASSES)
    places = [stage.partition(":") for stage in case.stages.values()]
    outputs = [getattr(network.get_layer(layer), end or "output") for layer, _, end in places]
    watched = keras.Model(network.input, [network.output, *outputs])
    logits, *maps = (np.asarray(output) for output in watched(images, training=False))
    maps = dict(zip(case.stages, maps, strict=True))
    shapes = {name: list(v.shape) for name, v in variables.items()}
    loss, grads, statistics = step(case, images, labels)
    found = {
        "shapes": json.dumps(shapes),
        "logits": logits,
        "loss": loss,
        "maps": originals.digest(maps),
        "map_shapes": json.dumps({stage: list(value.shape) for stage, value in maps.items()}),
        "grads": originals.digest(grads),
        "grad_names": json.dumps(list(grads)),
        "statistics": originals.digest(statistics),
    }
    np.savez_compressed(OUT / f"{case.name}.npz", **found)
    print(f"{case.name}: {len(shapes)} tensors, logits within {np.abs(logits).max():.3g}, loss {loss:.4f}", flush=True)


class Recorder(saving_lib.H5IOStore):
    """Where Keras saves weights to: keeps names and shapes alone."""

    def __init__(self):
        self.shapes, self.path = {}, ""

    def __bool__(self):
        return True

    def make(self, path, metadata=None):
        self.path = path
        return self

    def __setitem__(self, key, value):
        self.shapes[f"{self.path}/vars/{key}"] = np.broadcast_to(np.float32(0), value.shape)


def full(pattern):
    """Counts and names of the networks in full size."""
    path = OUT / "full.json"
    found = json.loads(path.read_text())
    for name in list_models(pattern):
        if (theirs := original_name(name, "keras")) is None:
            continue
        make = getattr(keras.applications, theirs)
        network = fresh(lambda make=make, name=name: make(weights=None, **original_arguments(name)))
        saved = Recorder()
        saving_lib._save_state(network, saved, None, "", set())
        count = sum(int(np.prod(v.shape)) for v in network.trainable_variables)
        shapes = {
            "keras": {name: tuple(v.shape) for name, v in variables_of(network).items()},
            "keras3": {name: value.shape for name, value in plain(saved.shapes).items()},
        }
        entry = found.setdefault(name, {})
        for convention, own in shapes.items():
            entry[convention] = {"parameters": count, "names": originals.names_hash(own)}
        print(name, theirs, count, network.count_params(), flush=True)
        path.write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="*", help="glob over names of cases and networks")
    parser.add_argument("--tiny", action="store_true", help="no full.json")
    options = parser.parse_args()
    for name, case in originals.cases().items():
        if fnmatch.fnmatchcase(name, options.only) and case.convention == "keras":
            record(case)
    if not options.tiny:
        full(options.only)


if __name__ == "__main__":
    print(f"keras {keras.__version__}, jax {jax.__version__}")
    jax.config.update("jax_disable_most_optimizations", True)  # each program runs once
    main()
