"""A repository's configs say which network it holds, and what its images must be like."""

import json
import math
from pathlib import Path

import numpy as np
import pictures
import pytest

from jaxft.decoding.transforms import eval_transform
from jaxft.errors import JaxftError
from jaxft.models import architecture_of, build, list_models, pretrained_records
from jaxft.preprocessing import Preprocessing, normalize
from jaxft.weights import create_model, export, is_repository, names, open_repository, save_safetensors
from jaxft.weights.repository import timm_config, timm_preprocessing, transformers_files

pytestmark = pytest.mark.usefixtures("quick_compiles")

FIXTURES = Path(__file__).parent / "fixtures"
DESCRIBED = {name: found for name in list_models() if (found := names.transformers_config(build(name)))}


def repository(folder, config, processor=None):
    """A folder with these configs, and a weight file that is no such."""
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"")
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return f"{folder}/"


def config_of(name):
    found = DESCRIBED[name]
    return {"architectures": [found.architecture], "model_type": found.model_type, **found.fields, **found.others}


def test_every_network_that_transformers_has_is_found_again_by_its_config(tmp_path):
    assert len(DESCRIBED) > 150
    for name, found in DESCRIBED.items():
        network = open_repository(repository(tmp_path, config_of(name))).network
        if network != name:  # the same network by another name: DeiT without distillation is a ViT
            assert architecture_of(network).config == architecture_of(name).config, (name, network)
            assert DESCRIBED[network] == found


def test_every_network_that_timm_has_is_found_again_by_its_config(tmp_path):
    for name in list_models():
        if names.original_name(name, "timm"):
            preprocessing = architecture_of(name).preprocessing
            found = open_repository(repository(tmp_path, timm_config(name, preprocessing, 10)))
            assert found.network == name
            assert found.preprocessing == preprocessing
            assert found.convention == "timm"


def test_the_preprocessing_of_timms_weights_survives_its_config():
    kept = [record for name in list_models("resnet*") for record in pretrained_records(name)]
    kept += [record for name in list_models("vit*") for record in pretrained_records(name)]
    kept = [record.preprocessing for record in kept if record.convention == "timm"]
    assert len({(found.size, found.resize) for found in kept}) > 10
    for found in kept:
        written = timm_config("resnet50", found, 10)["pretrained_cfg"]
        assert timm_preprocessing(written) == found
        assert math.floor(found.size / written["crop_pct"]) == found.resize  # what timm itself computes


# As these repositories have them, less what no part of it reads.
VIT = {
    "architectures": ["ViTForImageClassification"],
    "model_type": "vit",
    "hidden_size": 768,
    "image_size": 224,
    "layer_norm_eps": 1e-12,
    "id2label": {"1": "goldfish", "0": "tench"},
}
CASES = {
    "google/vit-base-patch16-224": (
        VIT,
        {"image_processor_type": "ViTImageProcessor", "size": 224, "resample": 2, "image_mean": [0.5] * 3},
        "vit_base_patch16_224_hf",
        Preprocessing(224, 224, "bilinear", (0.5,) * 3, (0.5,) * 3, squash=True),
    ),
    "microsoft/resnet-50": (
        {"architectures": ["ResNetForImageClassification"], "model_type": "resnet", "depths": [3, 4, 6, 3]},
        {"crop_pct": 0.875, "size": 224, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
        "resnet50",
        Preprocessing(224, 256, "bicubic"),
    ),
    "facebook/convnext-base-384": (
        {
            "architectures": ["ConvNextForImageClassification"],
            "model_type": "convnext",
            "depths": [3, 3, 27, 3],
            "hidden_sizes": [128, 256, 512, 1024],
            "layer_norm_eps": 1e-12,
        },
        {"size": {"shortest_edge": 384}, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
        "convnext_base",
        Preprocessing(384, 384, "bicubic", squash=True),
    ),
    "openai/clip-vit-base-patch32": (
        {"architectures": ["CLIPModel"], "model_type": "clip", "vision_config": {"model_type": "clip_vision_model"}},
        None,
        "vit_base_patch32_clip_quickgelu_224",
        Preprocessing(
            224,
            224,
            "bicubic",
            (0.48145466, 0.4578275, 0.40821073),
            (0.26862954, 0.26130258, 0.27577711),
        ),
    ),
    "facebook/deit-base-distilled-patch16-224": (
        {"architectures": ["DeiTForImageClassificationWithTeacher"], "model_type": "deit"},
        {"size": 256, "crop_size": 224, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
        "deit_base_distilled_patch16_224_hf",
        Preprocessing(224, 256, "bicubic", squash=True),
    ),
    "google/efficientnet-b0": (
        {
            "architectures": ["EfficientNetForImageClassification"],
            "model_type": "efficientnet",
            "width_coefficient": 1.0,
            "depth_coefficient": 1.0,
            "hidden_dim": 1280,
        },
        {
            "size": {"height": 224, "width": 224},
            "resample": 0,
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.5, 0.25, 0.125],
            "include_top": True,
        },
        "tf_efficientnet_b0",
        Preprocessing(224, 224, "nearest", (0.485, 0.456, 0.406), (0.25, 0.0625, 0.015625), squash=True),
    ),
    "google/mobilenet_v2_1.0_224": (
        {"architectures": ["MobileNetV2ForImageClassification"], "model_type": "mobilenet_v2"},
        {"size": {"shortest_edge": 256}, "rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False},
        "tf_mobilenetv2_100",
        Preprocessing(224, 256, "bilinear", (0.5,) * 3, (0.5,) * 3),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_configs_of_transformers_repositories_are_read_with_what_they_leave_out(case, tmp_path):
    config, processor, network, preprocessing = CASES[case]
    found = open_repository(repository(tmp_path, config, processor))
    assert found.network == network
    own = found.preprocessing
    assert (own.size, own.resize, own.interpolation, own.squash) == (
        preprocessing.size,
        preprocessing.resize,
        preprocessing.interpolation,
        preprocessing.squash,
    )
    np.testing.assert_allclose([own.mean, own.std], [preprocessing.mean, preprocessing.std], rtol=1e-12)
    assert found.class_names == (("tench", "goldfish") if "id2label" in config else ())


CROPPED = {"model_type": "vit", "architectures": ["ViTForImageClassification"]}
REFUSED = {
    "neither": ({"model": 1}, None, "neither timm's"),
    "another kind": ({"model_type": "bert"}, None, "transformers' 'bert', which jaxft does not have"),
    "another width": ({**VIT, "hidden_size": 100}, None, "no 'vit' like it .*hidden_size 100"),
    "another classifier": (
        {"model_type": "clip", "architectures": ["CLIPForImageClassification"], "vision_config": {}},
        None,
        "no 'clip_vision_model' like it",
    ),
    "timm's other network": ({"architecture": "maxvit_tiny"}, None, "timm's maxvit_tiny"),
    "timm's network made otherwise": (
        {"architecture": "resnet50", "model_args": {"drop_rate": 0.1, "block": "x"}},
        None,
        r"made otherwise \(block, drop_rate\)",
    ),
    "timm's border crop": (
        {"architecture": "resnet50", "pretrained_cfg": {"input_size": [3, 224, 224], "crop_mode": "border"}},
        None,
        "cropped by 'border'",
    ),
    "no size": ({"architecture": "resnet50", "pretrained_cfg": {}}, None, "cannot be read"),
    "pixels of any shape": (VIT, {"size": {"shortest_edge": 224}}, "keep their shape"),
    "no squares": (VIT, {"size": {"height": 224, "width": 192}}, "224 x 192"),
    "another resampling": (VIT, {"resample": 5}, "Pillow's number 5"),
    "labels that are no numbers": ({**VIT, "id2label": {"a": "b"}}, None, "cannot be read"),
    "fields of another type": ({"model_type": ["vit"]}, None, "cannot be read"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_repository_says_and_jaxft_cannot_do_is_an_error(case, tmp_path):
    config, processor, message = REFUSED[case]
    with pytest.raises(JaxftError, match=message):
        open_repository(repository(tmp_path, config, processor))


def test_configs_that_are_damaged_or_missing_are_errors(tmp_path):
    with pytest.raises(JaxftError, match="no weight file"):
        open_repository(f"{tmp_path}/")
    folder = repository(tmp_path, VIT)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(JaxftError, match="has none of model.safetensors"):
        open_repository(folder).find_weights()
    for text in ("{", "[1]", "[" * 100_000):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(JaxftError, match=r"config\.json"):
            open_repository(folder)


def test_a_repository_is_told_from_a_tag_a_file_and_a_network(tmp_path, monkeypatch):
    assert is_repository("hf:owner/name")
    assert is_repository("hf:owner/na.me@v1.0/x")
    assert not is_repository("hf:owner/name/model.safetensors")
    assert not is_repository("imagenet")
    assert not is_repository(str(tmp_path))
    assert is_repository(repository(tmp_path, VIT))
    monkeypatch.chdir(tmp_path.parent)  # a folder called as a network is: a run's, say, which has a config.json too
    assert not is_repository(tmp_path.name)
    assert is_repository(f"./{tmp_path.name}")


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """(a folder as transformers saves one, the network's arrays): ResNet-18 of four classes."""
    folder = tmp_path_factory.mktemp("resnet")
    model, params, state = create_model("resnet18", 4)
    preprocessing = Preprocessing(64, 72, "bicubic", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    for name, content in transformers_files("resnet18", preprocessing, 4, ("a", "b", "c", "d")).items():
        (folder / name).write_text(json.dumps(content))
    save_safetensors(folder / "model.safetensors", export({"params": params, **state}, names.rules(model, "transformers")))
    return folder, params, preprocessing


def test_a_network_is_made_of_a_repository_alone(resnet):
    folder, params, preprocessing = resnet
    model, found, _ = create_model(str(folder), pretrained=True)
    assert (model.name, model.num_classes, model.preprocessing) == ("resnet18", 4, preprocessing)
    np.testing.assert_array_equal(found["fc"]["kernel"], params["fc"]["kernel"])
    again = create_model("resnet18", pretrained=str(folder))
    np.testing.assert_array_equal(again.params["conv1"]["kernel"], params["conv1"]["kernel"])
    fresh = create_model(str(folder), num_classes=7, seed=1)  # without pretrained=True: random weights
    assert fresh.model.preprocessing == preprocessing
    assert fresh.params["fc"]["kernel"].shape == (512, 7)
    assert not np.array_equal(fresh.params["conv1"]["kernel"], params["conv1"]["kernel"])


def test_another_network_than_the_repositorys_is_an_error(resnet):
    with pytest.raises(JaxftError, match="holds a resnet18, not a resnet50"):
        create_model("resnet50", pretrained=str(resnet[0]))
    with pytest.raises(JaxftError, match="names weights, and pretrained 'imagenet' others"):
        create_model(str(resnet[0]), pretrained="imagenet")


def test_what_transformers_cannot_classify_with_is_not_written_for_it():
    for name in ("vit_base_patch16_clip_224", "vgg11"):
        with pytest.raises(JaxftError, match="no classifier like"):
            transformers_files(name, Preprocessing(), 10, ())


PROCESSORS = json.loads((FIXTURES / "processors.json").read_text())


@pytest.mark.parametrize("case", PROCESSORS["cases"])
def test_pictures_are_prepared_as_transformers_image_processors_prepare_them(case, tmp_path):
    expected = PROCESSORS["cases"][case]
    found = open_repository(repository(tmp_path, VIT, expected["config"])).preprocessing
    pixels = eval_transform(pictures.picture(*PROCESSORS["picture"]), found)
    prepared = np.asarray(normalize(pixels, found), np.float64).transpose(2, 0, 1)
    assert list(prepared.shape) == expected["shape"]
    kept = prepared.ravel()[:: prepared.size // 60]
    np.testing.assert_allclose(kept, expected["pixels"], atol=2e-6 * np.abs(kept).max())
