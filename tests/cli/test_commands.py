"""Commands that need no run."""

import subprocess
import sys

import numpy as np
import pytest

from jaxft.cli.main import USAGE, main
from jaxft.models import pretrained
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


def test_models_lists_networks_with_their_tags(capsys):
    assert main(["models", "resnet*"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
    assert lines[2].split(maxsplit=1)[1] == "imagenet, imagenet_v1, imagenet_v2"
    assert main(["models", "nothing*"]) == USAGE


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
    assert "--resume" in done.stdout
