"""A finished run becomes a file or a folder that says what it holds, and that jaxft reads back bit for bit."""

import json

import jax
import numpy as np
import pytest

from jaxft import tree
from jaxft.cli.main import main
from jaxft.config import default_config
from jaxft.errors import JaxftError
from jaxft.export import export_network, export_run
from jaxft.finetuned import FineTuned
from jaxft.models import build
from jaxft.plan import make_plan
from jaxft.weights import create_model, open_repository, read_with_metadata
from jaxft.weights.names import original_arguments, transformers_config
from jaxft.workdir import load_run

CLASSES = ["circle", "cross", "dots"]

pytestmark = pytest.mark.usefixtures("quick_compiles")


@pytest.fixture(scope="module")
def run(finished):
    return finished[0]


def leaves(params, state):
    return tree.flatten({"params": params, **state})


def assert_same(run, model, params, state):
    tuned = load_run(run)
    assert model.preprocessing == tuned.model.preprocessing
    ours, found = leaves(tuned.params, tuned.model_state), leaves(params, state)
    assert ours.keys() == found.keys()
    for path, leaf in ours.items():
        np.testing.assert_array_equal(leaf, found[path], err_msg=path)


def test_a_run_exported_for_timm_is_a_repository_that_is_read_back_bit_for_bit(run, tmp_path):
    exported = export_run(run, tmp_path / "timm")
    assert sorted(path.name for path in (tmp_path / "timm").iterdir()) == ["config.json", "model.safetensors"]
    config = json.loads((tmp_path / "timm" / "config.json").read_text())
    assert (config["architecture"], config["num_classes"], config["label_names"]) == ("resnet10t", 3, CLASSES)
    assert config["pretrained_cfg"]["input_size"] == [3, 32, 32]
    tensors, metadata = read_with_metadata(tmp_path / "timm" / "model.safetensors")
    assert tensors["fc.weight"].shape == (3, 512)
    assert json.loads(metadata["class_names"]) == CLASSES
    assert len(tensors) == exported.tensors
    assert f"timm.create_model('local-dir:{tmp_path / 'timm'}', pretrained=True)" in str(exported)
    assert open_repository(str(tmp_path / "timm")).class_names == tuple(CLASSES)
    assert_same(run, *create_model(str(tmp_path / "timm"), pretrained=True))


def test_a_run_exported_as_a_file_is_read_back_bit_for_bit_in_both_conventions(run, tmp_path):
    for to in ("jaxft", "timm"):
        export_run(run, tmp_path / f"{to}.safetensors", to=to)
        model, params, state = create_model("resnet10t", pretrained=str(tmp_path / f"{to}.safetensors"), size=32)
        assert_same(run, model, params, state)


def test_the_command_exports_a_checkpoint_and_never_writes_over_a_file_unasked(run, tmp_path, capsys):
    command = ["export", f"--workdir={run}", str(tmp_path / "out"), "--to=timm"]
    assert main(command) == 0
    assert "for timm" in capsys.readouterr().out
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert main([*command, "--step=2"]) == 2
    assert "exists: give another name, or overwrite it with --overwrite" in capsys.readouterr().err
    assert main([*command, "--step=2", "--overwrite"]) == 0
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before
    assert main([*command, "--step=9", "--overwrite"]) == 2
    assert "no checkpoint 9" in capsys.readouterr().err


def test_what_cannot_be_exported_says_what_can(run, tmp_path):
    with pytest.raises(JaxftError, match="cannot be written for 'torchvision'; only for jaxft, timm"):
        export_run(run, tmp_path / "out", to="torchvision")
    with pytest.raises(JaxftError, match=r"'jaxft' has no config of a network: give a file that ends in \.safetensors"):
        export_run(run, tmp_path / "out", to="jaxft")
    (tmp_path / "file").write_text("")
    with pytest.raises(JaxftError, match="cannot write"):
        export_run(run, tmp_path / "file" / "below", to="timm")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_run_is_continued_from_an_exported_folder(run, photos, tmp_path):
    """What was fine-tuned is where the next fine-tuning starts: the folder's name says network and weights."""
    export_run(run, tmp_path / "net")
    config = default_config()
    config.data.source = str(photos)
    config.model.name = str(tmp_path / "net")
    plan = make_plan(config)
    assert plan.record["model"]["name"] == "resnet10t"
    assert_same(run, plan.model, plan.params, plan.model_state)
    shapes = make_plan(config, weights=False)
    assert shapes.model.preprocessing == plan.model.preprocessing
    assert jax.tree.structure(shapes.params) == jax.tree.structure(plan.params)
    config.model.pretrained = "lite"
    with pytest.raises(JaxftError, match="config.model.pretrained 'lite': give one of them"):
        make_plan(config)


def tuned(name, **options):
    return _run_of(*create_model(name, 3, **options), **options)


def untouched(name, **options):
    """A run of zeros, for what does not look at its arrays: no network is drawn and compiled."""
    model = build(name, 3, **{"size": 64, **options})
    return _run_of(model, *jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), model.shapes), **options)


def _run_of(model, params, state, head="linear", **_):
    return FineTuned(model, params, state, tuple(CLASSES), "classify", 7, {"model": {"head": head}})


@pytest.mark.parametrize(
    ("name", "to", "out", "loads"),
    [
        ("resnet18", "torchvision", "net.safetensors", "torchvision.models.get_model('resnet18', num_classes=3)"),
        ("resnet18", "transformers", "net", "AutoModelForImageClassification.from_pretrained("),
        ("vit_tiny_patch16_224", "timm", "net.safetensors", "create_model('vit_tiny_patch16_224', num_classes=3, img_size=64)"),
        (
            "keras_mobilenetv2_035",
            "keras3",
            "net.weights.h5",
            "keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3), classes=3, alpha=0.35)",
        ),
    ],
)  # fmt: skip
def test_what_is_written_for_a_library_is_read_back_bit_for_bit_and_says_how_it_is_loaded(name, to, out, loads, tmp_path):
    network = tuned(name, size=64)
    exported = export_network(network, tmp_path / out, to=to)
    assert loads in exported.loads
    source = str(tmp_path / out) + ("/" if out == "net" else "")
    _, params, state = create_model(name, pretrained=source, size=64)
    ours, found = leaves(network.params, network.model_state), leaves(params, state)
    assert ours.keys() == found.keys()
    for path, leaf in ours.items():
        np.testing.assert_array_equal(leaf, found[path], err_msg=path)


def test_a_head_or_channels_that_a_library_does_not_have_are_not_written_for_it(tmp_path):
    with pytest.raises(JaxftError, match="the head is an 'mlp', which timm does not have: write it for jaxft"):
        export_network(untouched("resnet10t", head="mlp"), tmp_path / "net", to="timm")
    with pytest.raises(JaxftError, match="takes 1 channels, that of torchvision 3"):
        export_network(untouched("resnet18", in_channels=1), tmp_path / "net.safetensors", to="torchvision")
    export_network(tuned("resnet10t", in_channels=1), tmp_path / "net", to="timm")
    assert json.loads((tmp_path / "net" / "config.json").read_text())["model_args"] == {"in_chans": 1}
    with pytest.raises(JaxftError, match=r"a file that ends in \.weights\.h5"):
        export_network(untouched("keras_mobilenetv2_035"), tmp_path / "net.safetensors", to="keras3")
    with pytest.raises(JaxftError, match="only for jaxft, keras3"):
        export_network(untouched("keras_mobilenetv2_035"), tmp_path / "net.h5", to="keras")


def test_a_network_with_windows_is_written_for_timm_only_where_all_maps_are_whole_windows(tmp_path):
    small = untouched("swin_tiny_patch4_window7_224")
    for to in ("timm", "transformers"):
        with pytest.raises(JaxftError, match=f"no whole windows, which {to} treats .* fine-tune at a multiple of 224 pixels"):
            export_network(small, tmp_path / "net", to=to)
    assert original_arguments(build(small.model.name, size=448), "timm") == {"img_size": 448}
    assert original_arguments(build(small.model.name, size=448), "torchvision") == {}


def test_transformers_is_told_which_maps_of_an_efficientnet_have_odd_sides_and_gets_none_of_an_odd_image(tmp_path):
    # Of B0 to B7 what transformers' convert_efficientnet_to_pytorch.py gave the authors' files.
    published = ([], [16], [5, 8, 16], [5, 18], [6], [13, 27], [31], [18])
    sizes = (224, 240, 260, 300, 380, 456, 528, 600)
    for number, (size, listed) in enumerate(zip(sizes, published, strict=True)):
        config = transformers_config(build(f"tf_efficientnet_b{number}", size=size))
        assert config.others["depthwise_padding"] == listed
    odd = untouched("tf_efficientnet_b0", size=63)
    with pytest.raises(JaxftError, match="at 63 pixels transformers pads .* fine-tune at a multiple of 2 pixels"):
        export_network(odd, tmp_path / "net", to="transformers")


def test_what_libraries_want_to_find_beside_the_weights_is_written(tmp_path):
    exported = export_network(untouched("mnasnet0_5"), tmp_path / "net.safetensors", to="torchvision")
    assert "weights._metadata = network.state_dict()._metadata" in exported.loads
    export_network(untouched("vit_small_patch14_dinov2_lc", size=56), tmp_path / "net", to="transformers")
    tensors, _ = read_with_metadata(tmp_path / "net" / "model.safetensors")
    assert tensors["dinov2.embeddings.mask_token"].shape == (1, 384)


def test_what_a_run_keeps_of_a_tagged_network_builds_it_again(photos):
    """The tag is of the weights it began with: a checkpoint is of the network alone."""
    config = default_config()
    config.data.source = str(photos)
    config.model.name = "efficientnet_lite0.imagenet"
    record = make_plan(config, weights=False).record
    assert build(**record["model"]).name == "efficientnet_lite0"
