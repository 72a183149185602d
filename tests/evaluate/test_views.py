"""Test-time augmentation: the mean of the answers to several views, computed here one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxft.errors import JaxftError
from jaxft.evaluate import averaged, parse_views
from jaxft.evaluate.views import CROP

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
KERNEL = np.random.default_rng(1).normal(size=(32 * 32 * 3, 4)).astype(np.float32) / 500


def apply(params, model_state, image, *, train, rng):
    assert train is False
    assert rng is None
    logits = jnp.asarray(image, jnp.float32).reshape(len(image), -1) @ params
    return {"logits": logits, "features": logits}, model_state


def logits_of(images):
    return np.asarray(images, np.float64).reshape(len(images), -1) @ KERNEL.astype(np.float64)


def answered(text, probabilities):
    network = averaged(apply, parse_views(text), probabilities=probabilities)
    run = jax.jit(lambda image: network(KERNEL, {}, image, train=False, rng=None)[0]["logits"])
    return np.asarray(run(IMAGES))


def softmax(logits):
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def test_without_views_the_network_is_the_one_given():
    assert averaged(apply, parse_views(""), probabilities=True) is apply
    assert averaged(apply, parse_views(" , "), probabilities=True) is apply


@pytest.mark.parametrize("probabilities", [True, False])
def test_a_mirror_image_counts_as_much_as_the_picture(probabilities):
    both = [logits_of(IMAGES), logits_of(IMAGES[:, :, ::-1])]
    found = answered("flip", probabilities)
    if probabilities:
        np.testing.assert_allclose(np.exp(found), np.mean([softmax(one) for one in both], axis=0), atol=1e-4)
        np.testing.assert_allclose(np.exp(found).sum(-1), 1, atol=1e-5)
    else:
        np.testing.assert_allclose(found, np.mean(both, axis=0), rtol=1e-3, atol=1e-3)


def test_crops_are_the_corners_and_the_middle_enlarged():
    side = int(CROP * 32)
    assert side == 28
    boxes = [(left, top, left + side, top + side) for left, top in ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2))]

    def crops(image):
        picture = Image.fromarray(image)
        return np.stack([np.asarray(picture.resize((32, 32), Image.Resampling.BILINEAR, box=box)) for box in boxes])

    expected = np.mean([logits_of(np.stack(views)) for views in zip(*map(crops, IMAGES), strict=True)], axis=0)
    np.testing.assert_allclose(answered("crops", False), expected, atol=0.15)  # Pillow rounds pixels
    ten = answered("flip,crops", False)
    mirrored = np.mean([logits_of(np.stack(views)) for views in zip(*map(crops, IMAGES[:, :, ::-1]), strict=True)], axis=0)
    np.testing.assert_allclose(ten, (expected + mirrored) / 2, atol=0.15)
    assert len(parse_views("flip,crops")) == len(parse_views("crops, flip, crops")) == 10


def test_unknown_views_are_named_with_what_is_near():
    with pytest.raises(JaxftError, match=r"no views are called 'flipp' \(did you mean 'flip'\?\); there are flip, crops"):
        parse_views("flipp")
