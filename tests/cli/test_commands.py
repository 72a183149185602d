"""Commands that need no run."""

import subprocess
import sys

import numpy as np
import pytest

from jaxft.cli.main import USAGE, main
from jaxft.models import list_models, pretrained
from jaxft.weights import read, read_with_metadata


def test_convert_writes_jaxfts_names_and_goes_back_to_the_files_own(tmp_path, capsys):
    source = pretrained("efficientnet_lite0", "imagenet").source
    own, back = tmp_path / "own.safetensors", tmp_path / "back.safetensors"
    assert main(["convert", source, str(own), "--model=efficientnet_lite0"]) == 0
    assert "names of jaxft" in capsys.readouterr().out
    tensors, metadata = read_with_metadata(own)
    assert tensors["params/classifier/kernel"].shape == (1280, 1000)
    assert metadata["licence"] == "Apache-2.0"
    assert main(["convert", str(own), str(back), "--model=efficientnet_lite0", "--to=timm"]) == 0
    there = read(back)
    assert there["blocks.0.0.conv_dw.weight"].shape == (32, 1, 3, 3)
    np.testing.assert_array_equal(there["classifier.weight"], tensors["params/classifier/kernel"].T)
    assert main(["convert", str(own), str(back), "--model=efficientnet_lite0"]) == USAGE
    assert "overwrite it with --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to=tensorflow", "--model=resnet18"], "has no names of 'tensorflow'"),
        (["--to=timm"], "need the architecture: --model=NAME"),
        (["--model=resnet51"], "no network is called 'resnet51'"),
    ],
)
def test_a_conversion_that_cannot_be_is_said(tmp_path, capsys, arguments, message):
    source = pretrained("efficientnet_lite0", "imagenet").source
    assert main(["convert", source, str(tmp_path / "x.safetensors"), *arguments]) == USAGE
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_models_lists_networks_with_their_size_and_tags(capsys):
    assert main(["models", "resnet[15]*"]) == 0
    title, *lines = capsys.readouterr().out.splitlines()
    assert title.split() == ["network", "parameters", "GFLOP", "pixels", "weights"]
    rows = {line.split()[0]: line.split()[1:6] for line in lines}
    assert rows.keys() == set(list_models("resnet[15]*"))
    # torchvision publishes 25,557,032 parameters and 4.09 G multiply-adds, those with padding among them.
    assert rows["resnet50"] == ["25.6", "M", "7.90", "224", "imagenet_v2,"]
    assert main(["models", "nothing*"]) == USAGE


def test_models_tells_all_of_the_weights_of_one_network(capsys):
    assert main(["models", "efficientnet_lite0"]) == 0
    title, columns, row, *_ = capsys.readouterr().out.splitlines()
    assert title == "efficientnet_lite0: 4,652,008 parameters, 0.76 GFLOP for an image of 224 pixels"
    assert columns.split() == ["weights", "classes", "pixels", "top-1", "licence", "source"]
    assert row.split()[:5] == ["imagenet", "1000", "224", "-", "Apache-2.0"]
    assert row.split()[5] == pretrained("efficientnet_lite0", "imagenet").source


def test_a_reader_that_wants_no_more_ends_the_output_quietly():
    command = f"{sys.executable} -m jaxft models | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("network")


def test_help_needs_no_jax():
    code = """
import sys
from jaxft.cli.main import main
try:
    main(["train", "--help"])
except SystemExit:
    assert "jax" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for option in ("--workdir", "--strict", "--coordinator", "--processes", "--process "):
        assert option in done.stdout
    assert "--resume" not in done.stdout  # a run that is started again goes on by itself
