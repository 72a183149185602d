import dataclasses
import json

import pytest

import jaxft.bench.bench as bench
from jaxft.bench import OutOfMemory, Row, Work, format_table, run_bench, to_json
from jaxft.cli.main import USAGE, main

pytestmark = pytest.mark.usefixtures("quick_compiles")

QUICK = ("--model=resnet10t", "--size=32", "--rounds=2", "--seconds=0.01")


def test_the_command_sweeps_devices_prints_a_table_and_writes_json(tmp_path, capsys, photos):
    file = tmp_path / "result.json"
    command = ["bench", *QUICK, "--part=head,input", "--batch=4", "--devices=1,2", f"--data={photos}", f"--json={file}"]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert printed.err.count(": ready") == 3
    lines = printed.out.splitlines()
    header = next(number for number, line in enumerate(lines) if line.startswith("part"))
    assert "efficiency" in lines[header]
    assert [line.split()[:3] for line in lines[header + 1 :]] == [["head", "4", "1"], ["head", "4", "2"], ["input", "4", "-"]]
    assert "resnet10t at 32 px, float32" in lines[0]
    assert any(line.startswith("peak") and "measured matmul" in line for line in lines)
    assert any("they share the cores" in line for line in lines)

    found = json.loads(file.read_text())
    assert found["machine"]["device_count"] == 8
    one, two, pipeline = found["rows"]
    assert one["flops"] == two["flops"] > 0
    for row in (one, two):
        assert len(row["seconds"]) == 2
        assert row["best"] <= row["q1"] <= row["median"] <= row["q3"]
        assert row["images_per_second"] == pytest.approx(4 / row["median"])
        assert row["flops_per_second"] == pytest.approx(row["flops"] / row["median"])
        assert row["peak_share"] == pytest.approx(row["flops_per_second"] / row["peak"])
        assert row["compiled_bytes"] > 4 * 4_900_000
        assert row["compile_from"] in ("scratch", "cache")
        assert row["error"] is None
    assert one["efficiency"] == 1
    assert two["efficiency"] == pytest.approx(two["images_per_second"] / one["images_per_second"] / 2)
    assert pipeline["flops"] is None
    assert pipeline["images_per_second"] > 0


def test_a_row_out_of_memory_says_so_and_the_others_go_on(monkeypatch):
    def make(model, part, *, batch, **_):
        """Batch 8 does not fit at once, batch 2 after a few calls."""
        calls_made = []

        def run(calls):
            calls_made.append(calls)
            if batch == 8 or (batch == 2 and len(calls_made) > 2):
                raise OutOfMemory(f"out of memory: batch {batch}")
            return calls * 0.1

        return Work("work", model, part, batch, 32, run)

    monkeypatch.setattr(bench, "make_work", make)
    rows = run_bench("resnet18", parts=["eval"], batches=[8, 2, 1], size=32, devices=[1], rounds=1, seconds=0.01)
    assert [row.error for row in rows] == ["out of memory: batch 8", "out of memory: batch 2", None]
    assert rows[2].median == pytest.approx(0.1)
    assert rows[0].median is rows[1].median is None
    text = format_table(rows).splitlines()
    assert text[1].endswith("out of memory: batch 8")
    assert len(text) == 4


def test_weak_scaling_gives_each_device_its_batch():
    assert bench._asked(["head"], [4], [1, 2], True, 1) == [("head", 4, 1, 1), ("head", 8, 2, 1)]
    rows = [Row("m", "head", 4, 32, "float32", 1, images_per_second=10.0), Row("m", "head", 8, 32, "float32", 2)]
    rows[1] = dataclasses.replace(rows[1], images_per_second=15.0)
    assert [row.efficiency for row in bench._with_efficiency(rows, True)] == [1.0, 0.75]


def test_the_table_leaves_out_columns_without_figures():
    rows = [Row("m", "train+data", 8, 224, "float32", 1, median=0.5, q1=0.4, q3=0.6, images_per_second=16.0, wait_share=0.25)]
    header, line = format_table(rows).splitlines()
    assert header.split() == ["part", "batch", "devices", "ms/step", "(quartiles)", "images/s", "waiting"]
    assert line.split() == ["train+data", "8", "1", "500.00", "(400.00", "to", "600.00)", "16.0", "25%"]
    assert json.loads(to_json(rows))["rows"][0]["wait_share"] == 0.25


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model=resnet19"], "no network is called 'resnet19' (did you mean 'resnet18'"),
        (["--part=haed"], "pattern 'haed' matches no parameter"),
        (["--part=from:stage7"], "no stage is called 'stage7'"),
        (["--part=eval+data"], "'eval+data' cannot be timed"),
        (["--part="], "nothing to time"),
        (["--batch=4,x"], "--batch is '4,x': whole numbers with commas between them"),
        (["--batch=0"], "batch is 0"),
        (["--batch=6"], "batch is 6, not a multiple of the 8 devices; 8 would be"),
        (["--devices=16"], "devices is 16; there are 8 of kind cpu"),
        (["--devices=two"], "--devices is 'two'"),
        (["--size=0"], "size is 0"),
        (["--dtype=float16"], "dtype is 'float16'"),
        (["--optimizer=sdg"], "no optimizer is called 'sdg' (did you mean 'sgd'"),
        (["--accum-steps=3"], "accum_steps is 3"),
        (["--rounds=0"], "rounds (0)"),
        (["--seconds=0"], "seconds (0.0)"),
        (["--part=input", "--data=nowhere"], "no folder 'nowhere'"),
        (["--json=nowhere/result.json"], "cannot write nowhere/result.json"),
        (["--config.seed=1"], "jaxft bench takes no config"),
    ],
)
def test_what_does_not_fit_is_one_line_before_anything_is_compiled(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(bench, "make_work", lambda *_, **__: pytest.fail("compiled something"))
    assert main(["bench", "--model=resnet18", "--size=32", "--part=head", "--batch=8", *arguments]) == USAGE
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]
