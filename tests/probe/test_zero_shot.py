"""Zero-shot logits are those of transformers' CLIP and SigLIP, from features and from a network that begins with them."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxft import tree
from jaxft.errors import JaxftError
from jaxft.models import build, clip, registry, siglip, vit
from jaxft.preprocessing import Preprocessing
from jaxft.probe import read_texts, text_classifier, with_zero_shot_head
from jaxft.verify.seeded import images, state_dict
from jaxft.weights import convert, export, image_projection, save_safetensors
from jaxft.weights.names import rules

FIXTURES = Path(__file__).parent / "fixtures"
NAMES = ("ant", "bee", "cat", "dog", "elk")
#: The members of the registry that are like the tiny ones of the fixtures.
LIKE = {
    "clip": clip.ARCHITECTURES["vit_base_patch32_clip_quickgelu_224"],
    "siglip": siglip.ARCHITECTURES["vit_base_patch16_siglip_224_hf"],
}
KEY = jax.random.key(0)

pytestmark = pytest.mark.usefixtures("quick_compiles")


@dataclasses.dataclass(frozen=True)
class Tiny:
    """A fixture: its weights as a file, the network in the registry under `name`."""

    name: str
    file: Path
    fixture: dict
    tensors: dict

    @property
    def texts(self):
        scale, bias = float(self.fixture["logit_scale"]), float(self.fixture["logit_bias"])
        return text_classifier(NAMES, self.fixture["texts"], logit_scale=scale, logit_bias=bias)

    def network(self, head):
        """(model, params) with a fresh head of that kind."""
        model = build(self.name, len(NAMES), head=head)
        params, _ = model.init(KEY)
        found = convert(self.tensors, rules(model, "transformers"), model.variables, new=heads(model)).tree["params"]
        return model, {**found, "head": params["head"]}


def heads(model):
    return [f"params/{path}" for path in tree.paths(model.shapes[0]) if model.stage_of(path) == "head"]


@pytest.fixture(params=LIKE)
def tiny(request, tmp_path, monkeypatch):
    with np.load(FIXTURES / f"{request.param}.npz") as arrays:
        fixture = {key: arrays[key] for key in arrays.files}
    entry = LIKE[request.param]
    config = dataclasses.replace(entry.config, width=32, depth=2, heads=2, hidden=64, patch=8)
    if request.param == "siglip":
        config = dataclasses.replace(config, epsilon=1e-6)
    name = f"tiny_{request.param}"
    monkeypatch.setitem(registry._REGISTRY, name, vit.architecture(config, Preprocessing(32, 32), entry.family))
    shapes = {key: tuple(shape) for key, shape in json.loads(str(fixture["shapes"])).items()}
    tensors = {key: value for key, value in state_dict(1, shapes).items() if "position_ids" not in key}
    file = tmp_path / "tower.safetensors"
    save_safetensors(file, tensors, {"format": "pt"})
    return Tiny(name, file, fixture, tensors)


def test_logits_from_features_and_projection_are_logits_per_image(tiny):
    model, params = tiny.network("linear")
    features = np.asarray(model.apply(params, {}, images(1, 6, 32))[0]["features"])
    projection = image_projection(tiny.name, str(tiny.file))
    assert (projection is None) == (tiny.name == "tiny_siglip")
    embedded = features if projection is None else features @ projection
    unit = embedded / np.linalg.norm(embedded, axis=-1, keepdims=True)
    np.testing.assert_allclose(unit, tiny.fixture["image_embeds"], atol=2e-6)
    np.testing.assert_allclose(tiny.texts.logits(embedded), tiny.fixture["logits"], atol=1e-4)


def test_a_network_with_the_zero_shot_head_says_the_same_in_one_pass(tiny):
    projection = image_projection(tiny.name, str(tiny.file))
    model, params = tiny.network("cosine" if projection is None else "cosine:24")
    started = with_zero_shot_head(model, params, tiny.texts, projection)
    outputs, _ = jax.jit(lambda params, x: model.apply(params, {}, x))(started, images(1, 6, 32))
    np.testing.assert_allclose(outputs["logits"], tiny.fixture["logits"], atol=1e-4)
    with pytest.raises(JaxftError, match=r"need config\.model\.head='cosine.*', it is 'linear'"):
        with_zero_shot_head(tiny.network("linear")[0], params, tiny.texts, projection)
    with pytest.raises(JaxftError, match=r"head/(kernel|bias) is \[.*, what the texts make of it"):
        with_zero_shot_head(model, params, tiny.texts.ordered(NAMES[:3]), projection)


@pytest.mark.parametrize("tiny", ["clip"], indirect=True)
def test_timms_file_of_a_tower_gives_its_head_of_no_bias_and_a_classifier_gives_none(tiny, tmp_path):
    _, params = tiny.network("linear")
    model = build(tiny.name, 24)
    expected = tiny.tensors["visual_projection.weight"].T
    for bias, found in ((0.0, True), (1.0, False)):
        head = {"kernel": expected, "bias": np.full(24, bias, np.float32)}
        file = tmp_path / f"timm{bias}.safetensors"
        save_safetensors(file, export({"params": {**params, "head": head}}, rules(model, "timm")), {})
        projection = image_projection(tiny.name, str(file))
        if found:
            np.testing.assert_array_equal(projection, expected)
        else:
            assert projection is None
    assert image_projection(tiny.name, None) is None
    assert image_projection("resnet18", "imagenet") is None


def test_several_texts_of_a_class_are_averaged_after_they_are_brought_to_length_one():
    rng = np.random.default_rng(0)
    given = rng.normal(size=(3, 4, 8)) * rng.uniform(0.1, 10, (3, 4, 1))
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
    found = text_classifier(NAMES[:3], given)
    np.testing.assert_allclose(found.embeddings, unit(unit(given).mean(1)), atol=1e-6)
    assert found.scale == pytest.approx(100)
    np.testing.assert_allclose(found.ordered(["cat", "ant"]).embeddings, found.embeddings[[2, 0]])


def test_a_file_is_read_as_it_was_written(tmp_path):
    rng = np.random.default_rng(0)
    file = tmp_path / "texts.npz"
    np.savez(file, class_names=NAMES, embeddings=rng.normal(size=(5, 8)), logit_scale=np.float32(2.0), logit_bias=[-1.0])
    found = read_texts(file)
    assert found.class_names == NAMES
    assert (found.scale, found.bias) == (pytest.approx(np.exp(2.0)), -1.0)
    assert len(found.sha256) == 64


SOME = np.eye(5, 8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"class_names": NAMES}, "has no 'embeddings'"),
        ({"class_names": NAMES, "embeddings": SOME, "scale": 1.0}, r"has 'scale' .did you mean 'logit_scale'"),
        ({"class_names": NAMES[:2], "embeddings": SOME}, r"embeddings are \[5, 8\] for 2 class_names"),
        ({"class_names": NAMES, "embeddings": SOME[0]}, r"embeddings are \[8\]"),
        ({"class_names": NAMES, "embeddings": SOME * 0}, "an embedding is zero"),
        ({"class_names": NAMES, "embeddings": SOME, "logit_scale": 100.0}, "logit_scale is 100: it is the logarithm"),
        ({"class_names": NAMES, "embeddings": SOME, "logit_bias": [0.0, 1.0]}, r"logit_bias is of \[2\], not one number"),
        ({"class_names": ["ant", *NAMES[:4]], "embeddings": SOME}, "has 'ant' twice"),
    ],
)
def test_a_file_that_does_not_fit_is_one_clear_line(tmp_path, arrays, message):
    file = tmp_path / "texts.npz"
    np.savez(file, **arrays)
    with pytest.raises(JaxftError, match=message):
        read_texts(file)


def test_what_is_no_file_of_arrays_and_classes_without_texts_are_one_clear_line(tmp_path):
    (tmp_path / "no.npz").write_text("no")
    with pytest.raises(JaxftError, match=r"no\.npz' is no \.npz of arrays"):
        read_texts(tmp_path / "no.npz")
    with pytest.raises(JaxftError, match="cannot read the text embeddings .*: No such file"):
        read_texts(tmp_path / "none.npz")
    with pytest.raises(JaxftError, match=r"1 of 2 classes have no text, 'bees' first \(did you mean 'bee'\?\)"):
        text_classifier(NAMES, SOME).ordered(["ant", "bees"])
    with pytest.raises(JaxftError, match=r"image embeddings are \[2, 9\], those of the texts \[K, 8\]"):
        text_classifier(NAMES, SOME).logits(np.ones((2, 9)))
