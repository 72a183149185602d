"""What a run changed, written as one file and as a folder of PEFT's, and read back."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxft import tree
from jaxft.adapter_file import changes
from jaxft.adapters import with_adapter
from jaxft.cli.main import main
from jaxft.errors import JaxftError
from jaxft.export import export_network, export_run
from jaxft.finetuned import FineTuned
from jaxft.weights import create_model, read_with_metadata, save_safetensors
from jaxft.workdir import load_run

pytestmark = pytest.mark.usefixtures("quick_compiles", "one_device")


@pytest.fixture
def run(lora_run):
    return lora_run


def _image():
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


def _logits(tuned):
    logits = jax.jit(lambda *given: tuned.apply(*given, train=False, rng=None)[0]["logits"])
    return np.asarray(logits(tuned.params, tuned.model_state, _image()))


def test_the_run_trained_what_it_was_to_train_and_nothing_else(run):
    tuned = load_run(run)
    changed, _ = changes(tuned)
    paths = {path.removeprefix("params/") for path in changed if path.startswith("params/")}
    assert {path for path in paths if not path.startswith("adapters")} == {
        "fc/bias", "fc/kernel", *(f"layer4/0/bn1/{leaf}" for leaf in ("bias", "scale"))
    }  # fmt: skip
    assert all(path.startswith(("adapters/layer3", "adapters/layer4")) for path in paths if path.startswith("adapters"))
    assert any(np.any(leaf) for path, leaf in changed.items() if path.endswith("lora_b"))


def test_an_adapter_file_gives_the_network_back_bit_for_bit(run, tmp_path):
    tuned = load_run(run)
    exported = export_run(run, tmp_path / "photos.safetensors", to="adapter")
    assert exported.bytes < 0.1 * 4 * tree.count(tuned.params)
    again = load_run(tmp_path / "photos.safetensors")
    assert (again.class_names, again.task, again.step) == (tuned.class_names, tuned.task, tuned.step)
    for name in ("params", "model_state"):
        ours, found = tree.flatten(getattr(tuned, name)), tree.flatten(getattr(again, name))
        assert ours.keys() == found.keys()
        for path, leaf in ours.items():
            np.testing.assert_array_equal(leaf, found[path], err_msg=path)
    assert main(["eval", f"--workdir={tmp_path / 'photos.safetensors'}", "--split=val", "--json"]) == 0


def test_a_run_without_an_adapter_or_pretrained_weights_has_such_a_file_too(finished, tmp_path):
    tuned = load_run(finished[0])
    exported = export_run(finished[0], tmp_path / "whole.safetensors", to="adapter")
    assert exported.tensors == len(tree.paths(tuned.params)) + len(
        tree.paths(tuned.model_state)
    )  # it began with random weights
    again = load_run(tmp_path / "whole.safetensors")
    for path, leaf in tree.flatten(tuned.params).items():
        np.testing.assert_array_equal(leaf, tree.flatten(again.params)[path], err_msg=path)


def test_the_merged_network_is_a_plain_one_with_the_same_logits(run, tmp_path):
    assert main(["export", f"--workdir={run}", str(tmp_path / "net.safetensors"), "--to=jaxft"]) == 0
    tensors, _ = read_with_metadata(tmp_path / "net.safetensors")
    assert not any("adapters" in name for name in tensors)
    tuned = load_run(run)
    model, params, state = create_model("resnet10t", 3, str(tmp_path / "net.safetensors"), size=32)
    plain = tuned.__class__(model, params, state, tuned.class_names, tuned.task, tuned.step, tuned.record)
    np.testing.assert_allclose(_logits(plain), _logits(tuned), rtol=1e-4, atol=1e-5)


def test_other_pretrained_weights_are_refused(run, tmp_path):
    file, other = tmp_path / "photos.safetensors", tmp_path / "other.safetensors"
    export_run(run, file, to="adapter")
    tensors, metadata = read_with_metadata(file)
    record = json.loads(metadata["record"])
    base, about = read_with_metadata(record["config"]["model"]["pretrained"])
    spoilt = {key: value + 1 if key == "params/layer2/0/conv1/kernel" else np.array(value) for key, value in base.items()}
    save_safetensors(other, spoilt, about)
    record["config"]["model"]["pretrained"] = str(other)
    save_safetensors(file, {key: np.array(value) for key, value in tensors.items()}, {**metadata, "record": json.dumps(record)})
    with pytest.raises(JaxftError, match="was made for other weights: those of '.*base.safetensors' have another hash now"):
        load_run(file)


def test_what_is_no_adapter_says_so(run, tmp_path):
    file = tmp_path / "other.safetensors"
    save_safetensors(file, {"a": np.ones(3, np.float32)})
    with pytest.raises(JaxftError, match="is no adapter of `jaxft export --to=adapter`: weights are given by"):
        load_run(file)
    export_run(run, file, to="adapter", overwrite=True)
    with pytest.raises(JaxftError, match="exists: give another name"):
        export_run(run, file, to="adapter")
    with pytest.raises(JaxftError, match="give a name that ends in .safetensors"):
        export_run(run, tmp_path / "folder", to="adapter")
    tensors, metadata = read_with_metadata(file)
    save_safetensors(file, {key: np.array(value) for key, value in tensors.items()}, {**metadata, "record": "{}"})
    with pytest.raises(JaxftError, match="its record cannot be read"):
        load_run(file)


def test_peft_adapts_no_grouped_convolution(lora_run, tmp_path):
    tuned = load_run(lora_run)
    model, params, state = create_model("mobilenetv2_050", 3, size=32)
    model = with_adapter(model, "lora", rank=1, modules="**")
    tuned = dataclasses.replace(tuned, model=model, params=model.add_adapters(params, jax.random.key(0)), model_state=state)
    record = json.loads(json.dumps(tuned.record))
    record["config"]["model"] |= {"name": model.name, "pretrained": ""}
    with pytest.raises(JaxftError, match="'blocks/0/0/conv_dw' is a grouped convolution, which PEFT does not adapt"):
        export_network(dataclasses.replace(tuned, record=record), tmp_path / "peft", to="peft")


def test_peft_has_nothing_for_a_network_of_random_weights(lora_run, tmp_path):
    tuned = load_run(lora_run)
    record = json.loads(json.dumps(tuned.record))
    record["config"]["model"]["pretrained"] = ""
    with pytest.raises(JaxftError, match="began with random weights, on which PEFT cannot put anything"):
        export_network(dataclasses.replace(tuned, record=record), tmp_path / "peft", to="peft")


def test_peft_has_no_place_for_trained_batchnorms(run, tmp_path):
    with pytest.raises(JaxftError, match="statistics of BatchNorms have no place in PEFT's file"):
        export_run(run, tmp_path / "peft", to="peft")


@pytest.mark.parametrize("named", [True, False])
def test_a_vision_transformer_goes_to_peft_and_comes_back_on_its_own_repository(named, tmp_path):
    # The repository is the network's name, beside which the default weights do not count, or the pretrained weights.
    repository = str(tmp_path / "base")
    section = (
        {"name": repository, "pretrained": "imagenet"} if named else {"name": "vit_tiny_patch16_224", "pretrained": repository}
    )
    model, params, _ = create_model("vit_tiny_patch16_224", 3, size=32, seed=5)
    record = {"model": {"name": model.name, "num_classes": 3, "head": "linear", "in_channels": 3}}
    preprocessing = dataclasses.asdict(model.preprocessing)
    config = {"model": section, "seed": 0, "parallel": {"frozen_dtype": "float32"}}
    record |= {"preprocessing": preprocessing, "config": config, "class_names": ["a", "b", "c"], "task": "classify"}
    plain = FineTuned(model, params, {}, ("a", "b", "c"), "classify", 0, record)
    export_network(plain, tmp_path / "base")
    with_lora = with_adapter(model, "lora", rank={"blocks/*/attn/qkv": 2, "blocks/0/mlp": 1, "**": 0}, alpha=3.0)
    params = with_lora.add_adapters(params, jax.random.key(0))
    params = {**params, "adapters": jax.tree.map(lambda leaf: leaf + 0.1, params["adapters"])}
    params = {**params, "head": jax.tree.map(lambda leaf: leaf + 0.1, params["head"])}
    tuned = dataclasses.replace(plain, model=with_lora, params=params)
    exported = export_network(tuned, tmp_path / "peft", to="peft")
    assert f"peft.PeftModel.from_pretrained(network, '{tmp_path / 'peft'}')" in str(exported)
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert config["target_modules"][:2] == ["blocks.0.attn.qkv", "blocks.0.mlp.fc1"]
    assert (config["r"], config["lora_alpha"], config["modules_to_save"]) == (2, 3.0, ["head"])
    again = load_run(tmp_path / "peft")
    assert again.class_names == ("a", "b", "c")
    np.testing.assert_allclose(_logits(again), _logits(tuned), rtol=1e-5, atol=1e-5)
    assert export_run(tmp_path / "peft", tmp_path / "again.safetensors", to="adapter").bytes < exported.bytes * 4
    np.testing.assert_array_equal(_logits(load_run(tmp_path / "again.safetensors")), _logits(again))
    with pytest.raises(JaxftError, match="PEFT is given LoRA and DoRA, and this network has no adapter"):
        export_network(plain, tmp_path / "other", to="peft")
