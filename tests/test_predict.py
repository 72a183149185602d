"""A finished run is all that prediction and judging need."""

import csv
import io
import json
import shutil

import jax
import numpy as np
import pytest

from jaxft import tree
from jaxft.cli.main import main
from jaxft.errors import JaxftError
from jaxft.predict import evaluate_run, format_predictions, predict_files
from jaxft.workdir import load_run

CLASSES = ("circle", "cross", "dots")

pytestmark = pytest.mark.usefixtures("quick_compiles")


@pytest.fixture(scope="module")
def alone(finished, photos, tmp_path_factory):
    """The run's folder somewhere else, with neither config nor data beside it."""
    folder = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(finished[0], folder / "run")
    (folder / "run" / "config.json").unlink()
    shutil.copytree(photos, folder / "pictures")
    return folder


@pytest.fixture(scope="module")
def predictions(alone):
    return predict_files(load_run(alone / "run"), [alone / "pictures"])


def test_a_run_loads_from_its_folder_its_checkpoints_or_one_checkpoint(alone):
    run = load_run(alone / "run")
    assert (run.class_names, run.task, run.step) == (CLASSES, "classify", 2)
    assert run.model.num_classes == 3
    assert run.model.preprocessing.size == 32
    for path in (alone / "run" / "checkpoints", alone / "run" / "checkpoints" / "2"):
        again = load_run(path)
        assert again.step == 2
        for name, leaf in tree.flatten(run.params).items():
            np.testing.assert_array_equal(leaf, tree.flatten(again.params)[name], err_msg=name)
    with pytest.raises(JaxftError, match=r"has no checkpoint 5, only \[2\]"):
        load_run(alone / "run", step=5)


def test_predictions_stand_in_the_order_of_the_files_and_equal_the_network(alone, predictions):
    files = sorted((alone / "pictures").rglob("*.png"))
    assert predictions.names == tuple(map(str, files))
    assert predictions.logits.shape == (30, 3)
    assert predictions.bad == ()
    one_by_one = [predict_files(load_run(alone / "run"), [file]).logits[0] for file in files[::13]]
    np.testing.assert_allclose(predictions.logits[::13], one_by_one, atol=1e-5)


def test_what_the_run_reported_is_what_the_loaded_network_says(finished, predictions):
    rows = list(csv.DictReader((finished[0] / "predictions.csv").open()))
    assert len(rows) == 3
    said = {name.split("/pictures/")[1]: logits for name, logits in zip(predictions.names, predictions.logits, strict=True)}
    for row in rows:
        logits = said[row["name"]]
        assert row["predicted"] == CLASSES[logits.argmax()]
        assert float(row["probability"]) == pytest.approx(float(jax.nn.softmax(logits).max()), abs=1e-4)


def test_eval_gives_the_figures_of_the_report_and_counts_every_example(finished, photos, capsys):
    report = json.loads((finished[0] / "report.json").read_text())
    assert main(["eval", f"--workdir={finished[0]}", "--split=test", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["count"] == report["after"]["count"] == 3
    for name, value in report["after"]["figures"].items():
        assert found["figures"][name] == pytest.approx(value, abs=1e-5), name
    assert "val split, checkpoint 2: evaluated 3 of 3" in str(evaluate_run(finished[0]))
    whole = evaluate_run(finished[0], data=f"folder:{photos}")
    assert (whole.judged.count, whole.expected) == (30, 30)


def test_splits_that_are_not_there_are_said(finished, photos, tmp_path):
    for split in ("train", "val"):
        shutil.copytree(photos, tmp_path / "both" / split)
    with pytest.raises(JaxftError, match="has the splits train, val: choose one with --split"):
        evaluate_run(finished[0], data=f"folder:{tmp_path / 'both'}")
    with pytest.raises(JaxftError, match="has no test split, only train"):
        evaluate_run(finished[0], data=f"folder:{photos}", split="test")


@pytest.mark.parametrize("style", ["table", "json", "csv"])
def test_predict_writes_a_table_json_or_csv_with_class_names(alone, capsys, tmp_path, style):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    good = alone / "pictures" / "dots" / "003.png"
    command = ["predict", f"--workdir={alone / 'run'}", str(good), str(tmp_path), f"--format={style}", "--top=2"]
    assert main(command) == 0
    text = capsys.readouterr().out
    if style == "json":
        first, bad = json.loads(text)
        assert first["name"] == str(good)
        assert len(first["classes"]) == 2
        assert {entry["class"] for entry in first["classes"]} < set(CLASSES)
        assert bad == {"name": str(tmp_path / "broken.png"), "error": "not a picture in a known format"}
    elif style == "csv":
        first, bad = csv.DictReader(io.StringIO(text))
        assert first["class"] in CLASSES
        assert float(first["probability"]) >= float(first["probability_2"])
        assert bad["error"] == "not a picture in a known format"
    else:
        header, first, bad = text.splitlines()
        assert header.split()[:3] == ["name", "class", "probability"]
        assert first.startswith(str(good))
        assert bad.endswith("not a picture in a known format")
    assert main([*command, f"--output={tmp_path}/out.txt"]) == 0
    assert (tmp_path / "out.txt").read_text() == text


def test_multilabel_and_regression_predictions_read_off_the_logits(predictions):
    few = type(predictions)(("a", "b"), np.array([[3.0, -3.0, 0.5], [-1.0, -1.0, -1.0]]), ())
    rows = json.loads(format_predictions(few, CLASSES, "multilabel", style="json"))
    assert [list(row["labels"]) for row in rows] == [["circle", "dots"], []]
    assert rows[0]["labels"]["circle"] == pytest.approx(1 / (1 + np.exp(-3)))
    rows = json.loads(format_predictions(few, ("value",), "regression", style="json"))
    assert [row["value"] for row in rows] == [3.0, -1.0]
