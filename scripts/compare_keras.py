"""Keras against jaxft through files, in full size: both kinds that Keras writes are read, and what jaxft writes Keras reads.

Each network gets seeded weights in Keras, which saves them as `.h5` and as `.weights.h5`. jaxft loads either by its path alone.
Both see the same pictures, each through its own preprocessing, from pixels on: printed is the largest difference of logits over
the largest logit. Then jaxft writes a `.weights.h5`, and a new network of Keras that loads it must give what the first gave.

Needs keras, scikit-learn, pillow and jaxft in an environment of its own:
    python scripts/compare_keras.py china.jpg flower.jpg [--only "keras_resnet*"]
"""

import argparse
import tempfile
from pathlib import Path

import jax
import make_keras_fixtures as fixtures
import numpy as np
from keras import applications
from PIL import Image

from jaxft.models import architecture_of, build, list_models
from jaxft.preprocessing import on_pixels
from jaxft.weights import convert_file, load_model
from jaxft.weights.names import original_arguments, original_name

#: Where a family's `preprocess_input` is; in the others it is in the network.
MODULES = {
    "vgg": applications.vgg16,
    "resnet": applications.resnet,
    "resnetv2": applications.resnet_v2,
    "densenet": applications.densenet,
    "mobilenetv2": applications.mobilenet_v2,
    "inception_v3": applications.inception_v3,
}


def theirs(name, seed=None):
    make = getattr(applications, original_name(name, "keras"))
    options = {"weights": None, "classifier_activation": None, **original_arguments(build(name), "keras")}
    network = fixtures.fresh(lambda: make(**options))
    if seed is not None:
        fixtures.load(network, seed)
        for variable in network.variables:  # what Keras' network does with pixels, ours does before its own
            if variable.path.startswith("normalization"):
                mean, std = (np.asarray(v, np.float32) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
                variable.assign({"mean": mean, "variance": std**2, "count": 0}[variable.name])
        for layer in network.layers:
            if layer.name.startswith("normalization"):
                layer.finalize_state()
    return network


def pictures(paths, size):
    images = [Image.open(path).convert("RGB").resize((size, size), Image.Resampling.BILINEAR) for path in paths]
    return np.stack([np.asarray(image) for image in images])


def ours(name, path, pixels):
    model, params, state, report = load_model(name, None, str(path))
    apply = jax.jit(lambda p, s, x: on_pixels(model.apply, model.preprocessing)(p, s, x, train=False, rng=None)[0])
    return np.asarray(apply(params, state, pixels)["logits"]), report


def compare(name, paths, folder):
    architecture = architecture_of(name)
    pixels = pictures(paths, architecture.preprocessing.size)
    module = MODULES.get(architecture.family)
    prepared = module.preprocess_input(pixels.astype(np.float32)) if module else pixels.astype(np.float32)
    network = theirs(name, seed=1)
    expected = network.predict(prepared, verbose=0)
    cells = []
    for file in ("theirs.h5", "theirs.weights.h5"):
        network.save(folder / file) if file == "theirs.h5" else network.save_weights(folder / file)
        found, report = ours(name, folder / file, pixels)
        cells.append(f"{report.convention} {np.abs(found - expected).max() / np.abs(expected).max():.0e}")
        assert not report.new
    del network
    convert_file(folder / "theirs.h5", folder / "ours.weights.h5", model=name, to="keras3", overwrite=True)
    again = theirs(name)
    again.load_weights(folder / "ours.weights.h5")
    equal = np.array_equal(again.predict(prepared, verbose=0), expected)
    print(f"{name}: {', '.join(cells)}; read back by Keras: {'equal' if equal else 'DIFFERENT'}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("pictures", nargs="+")
    parser.add_argument("--only", default="*", help="glob over names of networks")
    options = parser.parse_args()
    for name in list_models(options.only):
        if original_name(name, "keras") is not None:
            with tempfile.TemporaryDirectory() as folder:
                compare(name, options.pictures, Path(folder))


if __name__ == "__main__":
    main()
