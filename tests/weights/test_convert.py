"""Files converted to jaxft's names and back: the same numbers, and all that is known beside them."""

import json

import numpy as np
import pytest

from jaxft import tree
from jaxft.errors import JaxftError
from jaxft.models import pretrained
from jaxft.weights import convert_file, export, fetch, load_model, names, read, read_with_metadata, save_safetensors
from jaxft.weights.sources import file_sha256


def assert_same(found, want):
    assert found.keys() == want.keys()
    for name, value in want.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.fixture
def torch_file(resnet18, tmp_path):
    path = tmp_path / "torch.safetensors"
    save_safetensors(path, resnet18[2])
    return path


def test_lite0_goes_to_jaxfts_names_and_back_bit_for_bit(tmp_path):
    record = pretrained("efficientnet_lite0", "imagenet")
    report = convert_file(record.source, tmp_path / "own.safetensors", model="efficientnet_lite0")
    assert report.tensors == 247
    assert str(report) == f"{tmp_path}/own.safetensors: 247 tensors, 18.8 MB, names of jaxft"
    found, metadata = read_with_metadata(tmp_path / "own.safetensors")
    assert {name.split("/")[0] for name in found} == {"params", "batch_stats"}
    assert metadata["model"] == "efficientnet_lite0"
    assert metadata["num_classes"] == "1000"
    assert metadata["licence"] == "Apache-2.0"
    assert metadata["source_sha256"] == record.sha256
    assert json.loads(metadata["preprocessing"])["interpolation"] == "bicubic"
    convert_file(tmp_path / "own.safetensors", tmp_path / "back.safetensors", model="efficientnet_lite0", to="lukemelas")
    assert_same(read(tmp_path / "back.safetensors"), read(fetch(record.source)))


def test_resnet18_goes_to_jaxfts_names_and_back_bit_for_bit(torch_file, resnet18, tmp_path):
    _, variables, tensors = resnet18
    convert_file(torch_file, tmp_path / "own.safetensors", model="resnet18")
    assert_same(read(tmp_path / "own.safetensors"), tree.flatten(variables))
    convert_file(tmp_path / "own.safetensors", tmp_path / "back.safetensors", model="resnet18", to="torchvision")
    assert_same(read(tmp_path / "back.safetensors"), tensors)


def test_head_channels_and_classes_are_the_files_own(seeded, tmp_path):
    model, variables = seeded("resnet18", 4, head="mlp", in_channels=2)
    save_safetensors(tmp_path / "torch.safetensors", export(variables, names.rules(model, "torchvision")))
    convert_file(tmp_path / "torch.safetensors", tmp_path / "own.safetensors", model="resnet18")
    found, metadata = read_with_metadata(tmp_path / "own.safetensors")
    assert_same(found, tree.flatten(variables))
    assert (metadata["head"], metadata["num_classes"], metadata["in_channels"]) == ("mlp", "4", "2")
    loaded = load_model("resnet18", None, str(tmp_path / "own.safetensors"), head="mlp", in_channels=2)
    assert loaded.report.new == ()


def test_without_an_architecture_only_the_container_changes(fixtures, tmp_path):
    source = fixtures / "compiled_parallel.pth"
    report = convert_file(source, tmp_path / "x.safetensors")
    assert "names as in the source" in str(report)
    found, metadata = read_with_metadata(tmp_path / "x.safetensors")
    assert_same(found, read(source))
    assert metadata == {"source_sha256": file_sha256(source), "source_unwrapped": "model, _orig_mod., module."}


def test_converting_twice_gives_the_same_bytes(torch_file, tmp_path):
    for name in ("a.safetensors", "b.safetensors"):
        convert_file(torch_file, tmp_path / name, model="resnet18")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_file_is_overwritten_only_when_asked(torch_file, fixtures, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_text("precious")
    with pytest.raises(JaxftError, match="exists: give another name, or overwrite it with --overwrite"):
        convert_file(fixtures / "plain.pth", path)
    assert path.read_text() == "precious"
    convert_file(fixtures / "plain.pth", path, overwrite=True)
    assert_same(read(path), read(fixtures / "plain.pth"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "resnet50"}, "not of this network"),
        ({"model": "vgg16"}, "has no head of vgg16"),
        ({"model": "resnet81"}, "no network is called 'resnet81' .did you mean 'resnet18'"),
        ({"model": "resnet18", "to": "keras"}, "no names of 'keras'; it has torchvision, timm|no names of 'keras'"),
        ({"to": "timm"}, "names of 'timm' need the architecture: --model=NAME"),
    ],
)
def test_what_cannot_be_converted_is_said_and_nothing_is_written(options, message, torch_file, tmp_path):
    with pytest.raises(JaxftError, match=message):
        convert_file(torch_file, tmp_path / "x.safetensors", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["torch.safetensors"]


def test_another_suffix_is_refused(torch_file, tmp_path):
    with pytest.raises(JaxftError, match=r"does not end in \.safetensors, which is what is written"):
        convert_file(torch_file, tmp_path / "x.pth")


def test_a_file_that_cannot_be_written_leaves_nothing(torch_file, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(JaxftError, match="cannot write"):
        convert_file(torch_file, tmp_path / "file" / "x.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "torch.safetensors"]
