"""The comparison of ways to fine-tune: its cells train what they say, and on what; rates are searched beyond a grid's end."""

import csv
import json
import math
from collections import Counter

import draw
import methods
import pytest
from alternate import FOLDER
from results import RESULTS, load, read
from tiny_run import draw_folder

from jaxft import tree
from jaxft.data import open_data
from jaxft.plan import make_plan


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return draw_folder(tmp_path_factory.mktemp("methods") / "pictures", per_class=60, size=12)


@pytest.fixture(scope="module")
def table(tmp_path_factory, pictures):
    file = tmp_path_factory.mktemp("methods") / "pictures.csv"
    methods.write_table(str(pictures), file, test_per_class=7)
    return file


def test_a_table_sets_the_same_training_pictures_of_each_class_aside(pictures, table, tmp_path):
    with table.open() as opened:
        rows = list(csv.DictReader(opened))
    found = open_data(f"folder:{pictures}", val_fraction=0.1, test_fraction=0.2)
    paths = {split: {row["path"] for row in rows if row["split"] == split} for split in ("train", "val", "test")}
    assert sum(map(len, paths.values())) == len(rows) == len(set.union(*paths.values()))
    assert Counter((row["split"], row["label"]) for row in rows) == {
        (split, name): count
        for name in found.class_names
        for split, count in (("train", len(found.train) // 3 - methods.ASIDE), ("val", methods.ASIDE), ("test", 7))
    }
    assert paths["train"] | paths["val"] == {str(found.train.root / name) for name in found.train.names}
    assert paths["test"] < {str(found.test.root / name) for name in found.test.names}
    methods.write_table(str(pictures), tmp_path / "again.csv", test_per_class=7)
    assert (tmp_path / "again.csv").read_text() == table.read_text()


@pytest.mark.parametrize("method", methods.METHODS)
def test_a_cell_shows_as_many_pictures_as_all_and_trains_what_it_is_called(table, method):
    config = methods.config_of(table, method, 5, 1, 1e-3)
    plan = make_plan(config, weights=False)
    last = plan.phases[-1]
    assert last.stop * config.input.batch_size == methods.SHOWN[5]
    assert len(plan.splits.train) == 15
    trained = tree.paths(tree.split(plan.params, last.mask)[0])
    assert {"classifier/kernel", "classifier/bias"} <= set(trained)
    everything = len(trained) == len(tree.paths(plan.params))
    assert everything == (method in ("full", "head, then full"))
    assert last.statistics_stay == (method == "norms+head, statistics frozen")
    norms = {path for path in trained if "bn" in path and not path.startswith("adapters/")}
    assert bool(norms) == (method not in ("head", "ssf+head", "lora+head", "full, norms frozen"))


def test_a_rate_is_searched_until_the_best_is_no_end_of_the_grid(monkeypatch):
    tried = []

    def run(table, method, per_class, seed, setting, *, judge):
        assert (table, method, per_class, seed, judge) == ("TABLE", "head", 20, 1000, "val")
        tried.append(setting)
        return -abs(math.log(setting / 0.08))

    monkeypatch.setattr(methods, "run", run)
    record = {"settings": {}, "grid": [], "rows": [], "costs": {}}
    kept = []
    methods.choose(record, "TABLE", "head", lambda: kept.append(len(record["grid"])))
    assert tried == pytest.approx([0.001, 0.003, 0.01, 0.03, 0.09, 0.27])
    assert record["settings"]["head"] == pytest.approx(0.09)
    assert kept == [1, 2, 3, 4, 5, 6]
    del record["settings"]["head"], record["grid"][-1]
    methods.choose(record, "TABLE", "head", lambda: None)  # one that was stopped tries the last alone
    assert tried[6:] == pytest.approx([0.27])
    assert record["settings"]["head"] == pytest.approx(0.09)


def test_the_table_has_the_means_of_the_seeds_and_says_how_far_they_lie_apart():
    found = [("one", 20, "head", 0.5), ("one", 5, "head", 0.25), ("one", 5, "full", 0.125), ("two", 5, "head", 0.75)]
    rows = [
        {"data": data, "per_class": count, "method": method, "seed": seed, "accuracy": accuracy + 0.1 * seed}
        for data, count, method, accuracy in found
        for seed in (0, 1)
        if (data, seed) != ("two", 1)
    ]
    lines = methods.table_of({"rows": rows}).splitlines()
    assert lines[0] == "| method | one, 5 | one, 20 | two, 5 |"
    assert "| head | 30.0 | 55.0 | 75.0 |" in lines
    assert "| full | 17.5 |  |  |" in lines
    assert lines[-1] == "from the worst seed to the best: 10.0 in the median cell, 10.0 at most"


def test_the_tables_in_the_docs_are_those_of_the_result_file():
    record, text = read(RESULTS / "methods.json"), (FOLDER.parent / "docs" / "fine-tuning.md").read_text()
    assert len(record["rows"]) == 3 * 3 * 3 * (1 + len(methods.METHODS))
    *table, _, spread = methods.table_of(record).splitlines()
    assert "\n".join(table) in text
    assert f"({spread})" in text
    assert methods.costs_of(record) in text


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(methods, "BATCH", 8)
    monkeypatch.setattr(methods, "SIZE", 32)
    monkeypatch.setattr(methods, "SHOWN", {2: 64})
    monkeypatch.setattr(methods, "METHODS", {"head": ((("head", 1.0),), 1e-2)})


@pytest.mark.slow
def test_the_comparison_runs_keeps_what_it_measured_and_is_drawn(pictures, short, one_device, tmp_path, monkeypatch, capsys):
    flags = ["methods.py", f"--data=made={pictures}", f"--result={tmp_path / 'found.json'}", "--seeds=1", "--rounds=2"]
    monkeypatch.setattr("sys.argv", flags)
    settings = {"linear probe": 1.0, "head": 3e-2}
    (tmp_path / "found.json").write_text(json.dumps({"settings": settings, "grid": [], "costs": {}, "rows": []}))
    methods.main()
    said = capsys.readouterr().out
    rows = load(tmp_path / "found.json")
    assert [(row["data"], row["per_class"], row["seed"], row["method"]) for row in rows] == [
        ("made", 2, 0, "linear probe"),
        ("made", 2, 0, "head"),
    ]
    assert all(row["accuracy"] > 0.4 for row in rows)  # colours tell the classes
    assert said.count("RESULT") == 2
    assert "| method | made, 2 |" in said
    assert f"| head | {100 * rows[1]['accuracy']:.1f} |" in said

    monkeypatch.setattr("sys.argv", [*flags, "--costs"])
    methods.main()
    assert "| head | 0.1" in capsys.readouterr().out  # of 3.4 million parameters
    monkeypatch.setattr("sys.argv", flags)
    methods.main()  # goes on, and nothing is left to do
    assert "RESULT" not in capsys.readouterr().out
    assert load(tmp_path / "found.json") == rows
    svg = draw.draw(tmp_path / "found.json")[0].read_text()
    for text in ("linear probe", "2 pictures a class", "1.0x", "% trained", "made"):
        assert text in svg
