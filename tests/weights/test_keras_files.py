"""Files that Keras wrote, read into the networks they are of: legacy `.h5`, `.weights.h5` and `.keras`, with and without what
training leaves in them. They stand in fixtures/keras.zip, written by scripts/make_keras_fixtures.py --files.
"""

import io
import zipfile

import jax
import numpy as np
import pytest

from jaxft.errors import JaxftError
from jaxft.models import build, convnext, efficientnet, mbconv
from jaxft.preprocessing import CAFFE
from jaxft.verify.seeded import images
from jaxft.weights import convert, convert_file, export, load_model, names, read, save_safetensors
from jaxft.weights.keras_files import plain
from jaxft.weights.load import convention_of

BLOCK = [[mbconv.Row("separable", 1, 3, 1, 1, 16, True)]]
ONE_BLOCK = mbconv.architecture(
    "efficientnet", mbconv.Config(mbconv.scaled(BLOCK, 8, "silu", 0.25), 8, 320, "silu", dropout=0.0, **efficientnet.KERAS)
)
NESTED = convnext.architecture(convnext.Config((1, 1, 1, 2), (4, 4, 4, 8)))
FILES = {
    "whole.weights.h5": (ONE_BLOCK, "keras3"),
    "head.weights.h5": (ONE_BLOCK, "keras3"),
    "head.h5": (ONE_BLOCK, "keras"),
    "head.keras": (ONE_BLOCK, "keras3"),
    "nested.weights.h5": (NESTED, "keras3"),
    "nested.h5": (NESTED, "keras"),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory, fixtures):
    """The folder of all files."""
    folder = tmp_path_factory.mktemp("keras")
    with zipfile.ZipFile(fixtures / "keras.zip") as archive:
        archive.extractall(folder)
    return folder


@pytest.mark.usefixtures("quick_compiles")
@pytest.mark.parametrize("name", FILES)
def test_what_keras_saved_gives_its_logits(written, name):
    architecture, convention = FILES[name]
    model = build(architecture, 5, size=32)
    tensors = plain(read(written / name))
    assert convention_of(model, tensors) == convention
    found = convert(tensors, names.rules(model, convention), model.variables)
    state = {key: value for key, value in found.tree.items() if key != "params"}
    logits = jax.jit(model.apply)(found.tree["params"], state, images(1, 2, 32))[0]["logits"]
    expected = np.load(written / "logits.npz")[name]
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())
    assert all("normalization" in ignored for ignored in found.ignored)


def test_a_keras_file_that_is_cut_short_is_refused(written, tmp_path):
    whole = (written / "head.keras").read_bytes()
    out = io.BytesIO()
    with zipfile.ZipFile(written / "head.keras") as archive, zipfile.ZipFile(out, "w") as damaged:
        damaged.writestr("model.weights.h5", archive.read("model.weights.h5")[:5000])
    for content in (whole[: len(whole) // 2], out.getvalue()):
        (tmp_path / "x.keras").write_bytes(content)
        with pytest.raises(JaxftError, match="damaged or cut short"):
            read(tmp_path / "x.keras")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("block1_conv1/block1_conv1_W_1:0", "block1_conv1.kernel"),  # Keras 1
        ("block1_conv1/block1_conv1_b_1:0", "block1_conv1.bias"),
        ("block_1_depthwise/block_1_depthwise/depthwise_kernel:0", "block_1_depthwise.kernel"),  # Keras 2
        ("conv1/bn/conv1/bn/moving_variance:0", "conv1_bn.moving_variance"),
        ("model_weights/vgg16/block1_conv1/kernel:0", "block1_conv1.kernel"),
        ("convnext_tiny_stem/convnext_tiny_stem_conv/kernel:0", "stem_conv.kernel"),
        ("convnext_tiny_stage_0_block_1_layer_scale/Variable:0", "stage_0_block_1_layer_scale.variable"),
        ("base/layers/functional/layers/conv2d_3/vars/0", "layers.conv2d_3.vars.0"),  # Keras 3
        ("layers/sequential_1/layers/conv2d/vars/1", "layers.sequential_1.layers.conv2d.vars.1"),
    ],
)
def test_names_of_every_version_are_cut_to_the_layers(path, expected):
    assert list(plain({path: np.zeros(1)})) == [expected]


def test_automatic_names_are_numbered_from_the_networks_first():
    found = plain({f"conv2d_{number}/conv2d_{number}/kernel:0": np.array(number) for number in (95, 9, 100)})
    assert {name: int(value) for name, value in found.items()} == {
        "conv2d.kernel": 9,
        "conv2d_1.kernel": 95,
        "conv2d_2.kernel": 100,
    }


def test_what_is_no_part_of_the_network_is_left_out():
    names = ["optimizer/vars/0", "optimizer_weights/adam/iteration", "layers/dropout/seed_generator/vars/0"]
    assert plain(dict.fromkeys([*names, "layers/dense/vars/0"], np.zeros(1))).keys() == {"layers.dense.vars.0"}


def test_parts_of_a_network_that_would_have_the_same_names_keep_their_own():
    found = plain(dict.fromkeys([f"block{number}/layers/conv2d/vars/0" for number in (1, 2)], np.zeros(1)))
    assert found.keys() == {"block1.layers.conv2d.vars.0", "block2.layers.conv2d.vars.0"}


@pytest.fixture(scope="module")
def small(seeded, tmp_path_factory):
    """A network of Keras in its names, four classes."""
    model, variables = seeded("keras_mobilenetv2_035", 4)
    path = tmp_path_factory.mktemp("small") / "net.safetensors"
    save_safetensors(path, names_of(model, variables))
    return path, variables


def names_of(model, variables):
    return export(variables, names.rules(model, "keras"))


def test_keras_3s_file_is_written_and_read_back_bit_for_bit(small, tmp_path):
    path, _ = small
    report = convert_file(path, tmp_path / "net.weights.h5", model="keras_mobilenetv2_035", to="keras3")
    assert report.tensors == 262
    assert "layers/depthwise_conv2d_16/vars/0" in read(tmp_path / "net.weights.h5")
    convert_file(tmp_path / "net.weights.h5", tmp_path / "back.safetensors", model="keras_mobilenetv2_035", to="keras")
    found, expected = read(tmp_path / "back.safetensors"), read(path)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize(("model", "to"), [(None, "jaxft"), ("keras_mobilenetv2_035", "keras")])
def test_a_file_for_keras_3_needs_its_names(small, tmp_path, model, to):
    with pytest.raises(JaxftError, match=r"is what Keras 3 loads: it needs the architecture, --model=NAME, and --to=keras3"):
        convert_file(small[0], tmp_path / "net.weights.h5", model=model, to=to)


def test_a_network_of_blue_green_and_red_gets_the_images_of_its_weights():
    assert names.preprocessing(build("vgg16"), "keras").mean == CAFFE.mean
    assert names.preprocessing(build("vgg16"), "timm") == build("vgg16").preprocessing
    assert build("keras_resnet50").preprocessing == CAFFE


@pytest.mark.parametrize("channels", [1, 4])
def test_the_first_convolution_is_adapted_in_the_order_of_our_channels(seeded, tmp_path, channels):
    model, variables = seeded("keras_resnet50", 4)
    foreign = names_of(model, variables)
    save_safetensors(tmp_path / "net.safetensors", foreign)
    kernel = load_model("keras_resnet50", 4, str(tmp_path / "net.safetensors"), in_channels=channels).params["conv1"]["kernel"]
    rgb = foreign["conv1_conv.kernel"][:, :, ::-1]
    expected = rgb.sum(2, keepdims=True) if channels == 1 else rgb[:, :, [0, 1, 2, 0]] * np.float32(3 / 4)
    np.testing.assert_allclose(kernel, expected, rtol=1e-6)
