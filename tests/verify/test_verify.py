"""Networks are compared with their originals: what is equal is found equal, and what is not is found where it begins."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from jaxft import tree
from jaxft.cli.main import FINISHED, USAGE, main
from jaxft.errors import JaxftError
from jaxft.models import build
from jaxft.verify import compare_layers, run_layers, seeded, verify
from jaxft.verify.compare import Difference, Parting, difference, furthest
from jaxft.verify.original import Original, Theirs, read_reference, write_reference
from jaxft.verify.verify import in_float64, packaged_reference, seeded_variables
from jaxft.weights.names import rules

NAME = "resnet18"

pytestmark = pytest.mark.usefixtures("quick_compiles")


def whole(array):
    return Theirs(array.shape, slice(None), np.asarray(array).ravel())


@pytest.fixture(scope="module")
def resnet18():
    """(model, variables, what torchvision's gave, seeded images)."""
    model = build(NAME, size=64)
    original, _ = read_reference(packaged_reference(NAME, "torchvision"))
    return model, seeded_variables(model, "torchvision", 0), original, seeded.images(0, 2, 64)


def test_a_network_equals_its_original_in_every_stage_the_logits_and_a_batch_in_train_mode():
    receipt = verify(NAME, None, reference=packaged_reference(NAME, "torchvision"))
    assert receipt.equal
    assert receipt.parting is None
    assert receipt.layers == 21  # 20 convolutions and the last dense layer
    assert [row.name.split(":")[0] for row in receipt.stages] == ["stem", "stage1", "stage2", "stage3", "stage4", "head"]
    assert receipt.agreement == 1
    assert max(receipt.loss.max_rel, receipt.gradients.max_rel, receipt.statistics.max_rel) < 1e-6
    assert receipt.versions.keys() == {"jax", "flax", "python", "torch", "torchvision"}
    found = json.loads(receipt.to_json())
    assert found["equal"] is True
    assert found["original"] == "torchvision resnet18"
    parted = dataclasses.replace(receipt, parting=Parting("fc", "fc", "", "a hint"))
    assert "it may be rounding" in str(parted)
    assert "it may be rounding" not in str(dataclasses.replace(parted, dtype="float64"))


def test_in_float64_a_network_gives_what_it_gives_in_float32_but_for_rounding(resnet18):
    model, variables, original, images = resnet18
    outputs, layers = run_layers(in_float64(model), variables, images)
    assert {layer.dtype for layer in layers.values()} == {np.dtype("float64")}
    single, _ = run_layers(model, variables, images)
    assert 1e-9 < difference("logits", single["logits"], whole(outputs["logits"])).max_rel < 1e-5
    assert difference("logits", outputs["logits"], original.tensors["logits"]).max_rel < 1e-5


def test_a_gain_scales_random_kernels_alone_and_is_said():
    shapes = {"conv.weight": (4, 3, 3, 3), "bn.weight": (4,), "bn.running_mean": (4,)}
    whole, half = seeded.state_dict(0, shapes), seeded.state_dict(0, shapes, 0.5)
    np.testing.assert_array_equal(half["conv.weight"], whole["conv.weight"] / 2)
    for name in ("bn.weight", "bn.running_mean"):
        np.testing.assert_array_equal(half[name], whole[name])
    with pytest.raises(JaxftError, match="of something else: weights seeded 0, not seeded 0, gain 0.5"):
        verify(NAME, None, gain=0.5, reference=packaged_reference(NAME, "torchvision"))


def test_kernels_of_zero_are_no_proof():
    with pytest.raises(JaxftError, match="gain is 0: it must be above zero"):
        verify(NAME, None, gain=0.0, reference=packaged_reference(NAME, "torchvision"))


def test_a_reference_of_another_dtype_and_an_unknown_dtype_are_refused():
    with pytest.raises(JaxftError, match="is a reference of something else: dtype None, not float64"):
        verify(NAME, None, dtype="float64", reference=packaged_reference(NAME, "torchvision"))
    with pytest.raises(JaxftError, match="dtype is 'float16', not float32 or float64"):
        verify(NAME, None, dtype="float16")


@pytest.mark.parametrize(
    ("changed", "layer", "after", "hint"),
    [
        ("params/conv1/kernel", "conv1", "", "image reaches it otherwise"),
        ("batch_stats/layer2/0/bn1/var", "layer2/0/conv2", "layer2/0/conv1", "epsilon or the statistics of the normalisation"),
        ("params/layer3/1/conv2/kernel", "layer3/1/conv2", "layer3/1/conv1", "padding"),
        ("batch_stats/layer4/1/bn2/mean", "fc", "layer4/1/conv2", "the activation before it"),
    ],
)
def test_a_mismatch_is_traced_to_the_first_layer_that_differs(changed, layer, after, hint, resnet18):
    model, variables, original, images = resnet18
    turned = tree.map_with_path(lambda path, leaf: leaf[::-1].copy() if path == changed else leaf, variables)
    _, layers = run_layers(model, turned, images)
    _, parting, _ = compare_layers(model, layers, original, rules(model, "torchvision"), 1e-4)
    assert (parting.layer, parting.after) == (layer, after)
    assert hint in parting.hint
    assert layer.replace("/", ".") in str(parting)


def test_a_difference_is_measured_over_the_largest_value_of_theirs():
    theirs = np.array([[1.0, -4.0], [0.0, 2.0]])
    found = difference("x", theirs + np.array([[0, 0], [0, 0.5]]), whole(theirs))
    assert (found.max_abs, found.max_rel) == (0.5, 0.125)
    assert found.cosine == pytest.approx((1 + 16 + 5) / np.sqrt(21 * (17 + 6.25)))
    assert difference("zero", np.zeros(3), whole(np.zeros(3))) == difference("zero", np.zeros(3), whole(np.zeros(3)))
    assert difference("zero", np.zeros(3), whole(np.zeros(3))).cosine == 1


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (2, 4, 4, 4), (2, 1, 1, 6)])
def test_maps_are_compared_whatever_the_place_of_their_channels(shape):
    ours = np.random.default_rng(0).standard_normal(shape)
    for theirs in (ours, ours.transpose(0, 3, 1, 2)):
        assert difference("map", ours, whole(theirs)).max_abs == 0
    assert difference("map", ours, whole(np.zeros(3))).max_rel == np.inf


def test_nan_is_a_difference(resnet18):
    model, variables, original, images = resnet18
    broken = tree.map_with_path(lambda path, leaf: leaf * np.nan if path.endswith("layer2/0/conv1/kernel") else leaf, variables)
    _, layers = run_layers(model, broken, images)
    stages, parting, _ = compare_layers(model, layers, original, rules(model, "torchvision"), 1e-4)
    assert parting.layer == "layer2/0/conv1"
    assert [row.name.split(":")[0] for row in stages if np.isnan(row.max_rel)] == ["stage2", "stage3", "stage4", "head"]


@pytest.mark.parametrize("worst", [np.nan, np.inf, 3.0])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_furthest_is_found_wherever_it_stands_and_nan_is_further_than_all(worst, place):
    values = [1.0, 2.0]
    values.insert(place, worst)
    found = furthest(Difference(str(number), 0.0, value, 0.0) for number, value in enumerate(values))
    assert found.name == str(place)
    assert furthest([]) is None


def test_a_map_of_another_size_is_where_the_networks_part(resnet18):
    model, variables, original, _ = resnet18
    _, layers = run_layers(model, variables, seeded.images(0, 2, 32))
    stages, parting, count = compare_layers(model, layers, original, rules(model, "torchvision"), 1e-4)
    assert (parting.layer, count) == ("conv1", 21)
    assert stages[0].max_rel == np.inf


def test_a_reference_keeps_some_entries_of_every_tensor(tmp_path):
    tensors = {"logits": np.arange(6.0).reshape(2, 3), "layer|a": np.arange(1000.0).reshape(10, 100)}
    original = Original({key: whole(value) for key, value in tensors.items()}, {"torch": "2"})
    write_reference(tmp_path / "kept.npz", original, {"network": "x"})
    found, about = read_reference(tmp_path / "kept.npz")
    assert about == {"network": "x"}
    assert found.versions == {"torch": "2"}
    for key, value in tensors.items():
        kept = found.tensors[key]
        assert kept.shape == value.shape
        np.testing.assert_array_equal(kept.values, value.ravel()[kept.indices])
    assert found.tensors["layer|a"].values.size == 64
    assert found.tensors["logits"].values.size == 6


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nothing", b"some text"])
def test_a_damaged_reference_is_a_clear_error(content, tmp_path):
    path = tmp_path / "kept.npz"
    path.write_bytes(content)
    with pytest.raises(JaxftError, match="cannot be read as a reference"):
        verify(NAME, None, reference=path)
    with pytest.raises(JaxftError, match="cannot be read as a reference"):
        verify(NAME, None, reference=tmp_path / "missing.npz")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1}, "is a reference of something else: weights seeded 0, not seeded 1"),
        ({"size": 32}, r"images \[0, 2, 64, 64, 3\], not \[0, 2, 32, 32, 3\]"),
        ({"against": "timm"}, "original torchvision resnet18, not timm resnet18"),
        ({"against": "keras"}, "keras has no resnet18; torchvision, timm, transformers has it"),
    ],
)
def test_a_reference_of_something_else_is_refused(options, message):
    with pytest.raises(JaxftError, match=message):
        verify(NAME, None, reference=packaged_reference(NAME, "torchvision"), **options)


def test_where_there_is_no_torch_it_is_said_what_to_do():
    with pytest.raises(JaxftError, match="could not be run .*torch.*give another Python with --torch-python"):
        verify(NAME, None, torch_python=sys.executable, train=False)
    with pytest.raises(JaxftError, match="no reference of resnet34 comes with jaxft: give a Python that has torch"):
        verify("resnet34", None)
    with pytest.raises(JaxftError, match="cannot be run .No such file"):
        verify(NAME, None, torch_python="/nowhere/python", train=False)


def test_the_command_prints_a_table_and_writes_json(tmp_path, capsys):
    out = tmp_path / "receipt.json"
    assert main(["verify", NAME, "--no-train", f"--json={out}"]) == FINISHED
    printed = capsys.readouterr().out
    assert "resnet18 against torchvision resnet18, weights seeded 0" in printed
    assert printed.endswith("equal within the tolerance\n")
    assert json.loads(out.read_text())["equal"] is True
    assert main(["verify", "resnet81"]) == USAGE
    assert "did you mean 'resnet18'" in capsys.readouterr().err
