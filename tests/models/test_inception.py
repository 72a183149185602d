"""What is GoogLeNet's and Inception-v3's own: their input, and their auxiliary heads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxft.models import build, pretrained
from jaxft.preprocessing import Preprocessing, normalize
from jaxft.verify.verify import seeded_variables
from jaxft.weights import export, load_model, save_safetensors
from jaxft.weights.names import rules


@pytest.mark.parametrize("name", ["googlenet", "inception_v3", "googlenet_aux", "inception_v3_aux"])
def test_pixels_are_what_torchvisions_transform_input_makes_of_imagenets(name):
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(256, 3)
    usual, ours = normalize(pixels, Preprocessing()), normalize(pixels, pretrained(name).preprocessing)
    mean, std = np.array(Preprocessing().mean), np.array(Preprocessing().std)
    np.testing.assert_allclose(ours, usual * (std / 0.5) + (mean - 0.5) / 0.5, atol=1e-6)
    assert build(name).preprocessing == pretrained(name).preprocessing


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A file like torchvision's, with auxiliary heads of ten classes, and its variables."""
    model = build("googlenet_aux", 10)
    variables = seeded_variables(model, "torchvision", 0)
    path = tmp_path_factory.mktemp("weights") / "googlenet.safetensors"
    save_safetensors(path, export(variables, rules(model, "torchvision")))
    return str(path), variables


def test_a_file_with_auxiliary_heads_is_loaded_with_and_without_them(file):
    path, variables = file
    whole, plain = load_model("googlenet_aux", None, path), load_model("googlenet", None, path)
    assert whole.report.new == plain.report.new == ()
    assert whole.report.loaded == plain.report.loaded + 2 * 9  # a convolution, its BatchNorm's four, two dense layers
    assert set(plain.params) == set(variables["params"]) - {"aux1", "aux2"}
    np.testing.assert_array_equal(whole.params["aux1"]["fc2"]["kernel"], variables["params"]["aux1"]["fc2"]["kernel"])


def test_other_classes_make_the_auxiliary_heads_last_layers_new_too(file):
    loaded = load_model("googlenet_aux", 4, file[0])
    layers = ("aux1/fc2", "aux2/fc2", "fc")
    assert loaded.report.new == tuple(f"{layer}/{leaf}" for layer in layers for leaf in ("bias", "kernel"))


def test_auxiliary_logits_are_outputs_of_the_stage_they_read():
    model = build("googlenet_aux", 4, size=32)
    image = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    params, state = model.shapes
    outputs, _ = jax.eval_shape(lambda p, s, x: model.apply(p, s, x), params, state, image)
    assert {outputs[name].shape for name in ("aux1", "aux2", "logits")} == {(2, 4)}
    assert model.stage_of("aux1/conv/conv/kernel") == "stage2"
    assert model.stage_of("aux1/fc2/kernel") == "head"
