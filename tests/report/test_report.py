"""The report of a run: what is judged, the files that keep it, and the sheet of samples."""

import csv
import json
import math
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from jaxft.data.sources import Arrays
from jaxft.evaluate import Evaluation, bootstrap_interval, scores
from jaxft.report import Judged, draw_samples, judge, table, write_report, write_samples
from jaxft.tasks import get_task

NAMES = ("ant", "bee", "cat")
RNG = np.random.default_rng(0)
RED, GREEN = (190, 30, 40), (24, 112, 60)
CELL, TEXT, GAP = 112, 30, 8


def _classified(size=40):
    labels = RNG.integers(0, 3, size).astype(np.int32)
    logits = RNG.normal(size=(size, 3)).astype(np.float32)
    logits[np.arange(size), labels] += 1
    metrics = {"loss": scores.log_loss(labels, logits), "accuracy": scores.accuracy(labels, logits.argmax(-1))}
    return Evaluation(metrics, logits, labels, np.arange(size), size)


def _judged(evaluation, task="classify", names=NAMES):
    return judge(evaluation, get_task(task, len(names)), names)


def _source(size, shape=(4, 4, 3)):
    return Arrays(np.zeros((size, *shape), np.uint8), np.zeros(size, np.int32), [f"dir/{n}.png" for n in range(size)])


def _write(workdir, evaluation, task="classify", names=NAMES, source=None):
    judged = _judged(evaluation, task, names)
    settings = {"title": "net on data", "split": "test", "step": 120}
    source = source or _source(evaluation.count)
    text = write_report(workdir, judged, judged, evaluation, source, get_task(task, len(names)), names, **settings)
    with (workdir / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return text, list(csv.reader(file))


def test_classes_are_judged_with_an_interval_and_a_line_a_class():
    evaluation = _classified()
    judged = _judged(evaluation)
    predicted = evaluation.logits.argmax(-1)
    right = predicted == evaluation.labels
    confusion = scores.confusion_matrix(evaluation.labels, predicted, 3)
    assert judged.count == 40
    assert judged.figures == {
        **evaluation.metrics,
        "macro_f1": scores.macro_f1(confusion),
    }
    assert judged.intervals == {"accuracy": bootstrap_interval(right)}
    low, high = judged.intervals["accuracy"]
    assert low < judged.figures["accuracy"] < high
    assert [row["name"] for row in judged.classes] == list(NAMES)
    for number, row in enumerate(judged.classes):
        of_label, of_guess = evaluation.labels == number, predicted == number
        assert row["support"] == of_label.sum()
        assert row["recall"] == pytest.approx(right[of_label].mean())
        assert row["precision"] == pytest.approx(right[of_guess].mean())
        assert row["f1"] == pytest.approx(2 / (1 / row["recall"] + 1 / row["precision"]))


def test_a_class_without_examples_has_a_line_of_zeros():
    judged = _judged(_classified(), names=(*NAMES, "dog"))
    assert judged.classes[3] == {"name": "dog", "support": 0, "precision": 0, "recall": 0, "f1": 0}


def test_many_labels_are_judged_by_average_precision_and_the_share_of_right_labels():
    labels = (RNG.random((50, 3)) < 0.4).astype(np.float32)
    logits = (labels - 0.5 + RNG.normal(size=(50, 3))).astype(np.float32)
    right = ((logits > 0) == (labels > 0.5)).mean(-1)
    judged = _judged(Evaluation({"loss": 0.5, "accuracy": right.mean()}, logits, labels, np.arange(50), 50), "multilabel")
    assert list(judged.figures) == ["loss", "accuracy", "mean_average_precision"]
    assert judged.figures["mean_average_precision"] == scores.mean_average_precision(labels, logits)
    assert judged.intervals == {"accuracy": bootstrap_interval(right)}
    assert judged.classes == ()


def test_values_are_judged_by_their_errors():
    labels = RNG.normal(size=30).astype(np.float32)
    logits = (labels + 0.1 * RNG.normal(size=30)).astype(np.float32)[:, None]
    judged = _judged(Evaluation({"loss": 0.01, "mae": 9.0}, logits, labels, np.arange(30), 30), "regression", ("value",))
    assert judged.figures == {"loss": 0.01, **scores.regression_scores(labels, logits[:, 0])}
    assert judged.intervals == {}
    assert judged.classes == ()


@pytest.mark.parametrize("task", ["classify", "multilabel"])
def test_a_row_of_nan_counts_as_wrong_in_the_interval_too(task):
    # argmax of NaNs is 0, and a NaN is not larger than 0: both would be right here.
    labels = np.zeros(4, np.int32) if task == "classify" else np.zeros((4, 3), np.float32)
    logits = np.full((4, 3), np.nan, np.float32)
    judged = _judged(Evaluation({"loss": math.nan, "accuracy": 0.0}, logits, labels, np.arange(4), 4), task)
    assert judged.intervals["accuracy"] == (0, 0)


def test_judging_says_the_same_each_time():
    evaluation = _classified()
    assert _judged(evaluation) == _judged(evaluation)


def test_the_table_sets_before_beside_after_with_percents_where_there_are_intervals():
    before = Judged({"loss": 2.302585, "accuracy": 0.1}, {"accuracy": (0.05, 0.1525)}, (), 100)
    after = Judged({"loss": 0.25, "accuracy": 0.9375}, {"accuracy": (0.9, 1.0)}, (), 100)
    assert table(before, after, 1200).splitlines() == [
        "          before                  after (step 1200)",
        "loss      2.3026                  0.2500",
        "accuracy  10.00% [5.00%, 15.25%]  93.75% [90.00%, 100.00%]",
    ]


def test_the_report_names_split_count_figures_and_classes(tmp_path):
    labels = np.array([0, 1, 1, 2], np.int32)
    logits = np.log(np.array([[0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], np.float32))
    evaluation = Evaluation({"loss": 0.5, "accuracy": 0.75}, logits, labels, np.arange(4), 4)
    judged = _judged(evaluation)
    text, _ = _write(tmp_path, evaluation)
    assert text == (tmp_path / "report.md").read_text(encoding="utf-8")
    assert text.splitlines() == [
        "# net on data",
        "",
        "test split: evaluated 4 of 4; intervals are 95 % bootstrap intervals over examples.",
        "",
        "```",
        *table(judged, judged, 120).splitlines(),
        "```",
        "",
        "| class | examples | precision | recall | F1 |",
        "|---|---|---|---|---|",
        "| ant | 1 | 0.500 | 1.000 | 0.667 |",
        "| bee | 2 | 1.000 | 0.500 | 0.667 |",
        "| cat | 1 | 1.000 | 1.000 | 1.000 |",
    ]
    assert text.endswith("\n")


def test_the_report_as_json_holds_all_that_was_judged(tmp_path):
    evaluation = _classified()
    _write(tmp_path, evaluation)
    found, judged = json.loads((tmp_path / "report.json").read_text(encoding="utf-8")), _judged(evaluation)
    assert (found["title"], found["split"], found["step"]) == ("net on data", "test", 120)
    assert found["before"] == found["after"]
    assert found["after"]["figures"] == judged.figures
    assert found["after"]["intervals"] == {"accuracy": list(judged.intervals["accuracy"])}
    assert found["after"]["classes"] == list(judged.classes)
    assert found["after"]["count"] == 40


def test_predictions_have_a_line_an_example_with_name_label_answer_and_probability(tmp_path):
    probability = np.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5], [0.1, 0.8, 0.1]], np.float32)
    # The second example of the source was not judged.
    evaluation = Evaluation({"loss": 1.0, "accuracy": 1 / 3}, np.log(probability), np.array([0, 1, 2]), np.array([0, 2, 3]), 3)
    _, rows = _write(tmp_path, evaluation, source=_source(4))
    assert rows == [
        ["name", "label", "predicted", "probability"],
        ["dir/0.png", "ant", "ant", "0.700000"],
        ["dir/2.png", "bee", "cat", "0.500000"],
        ["dir/3.png", "cat", "bee", "0.800000"],
    ]


def test_names_with_commas_quotes_line_ends_and_any_script_come_back_from_the_csv(tmp_path):
    names = ("a, b", 'say "x"', "猫 été")
    evaluation = _classified(3)
    source = Arrays(np.zeros((3, 2, 2), np.uint8), evaluation.labels, ["x,y.png", "line\nend.png", "ü/猫.png"])
    text, rows = _write(tmp_path, evaluation, names=names, source=source)
    assert [row[0] for row in rows[1:]] == source.names
    assert [row[1] for row in rows[1:]] == [names[label] for label in evaluation.labels]
    assert "| 猫 été |" in text


def test_predictions_of_many_labels_are_probabilities_however_large_the_logits(tmp_path):
    logits = np.array([[0, np.log(3), -200], [200, -1e30, 1e30]], np.float32)
    evaluation = Evaluation({"loss": 1.0, "accuracy": 0.5}, logits, np.eye(3, dtype=np.float32)[:2], np.arange(2), 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text, rows = _write(tmp_path, evaluation, "multilabel")
    assert rows == [
        ["name", *NAMES],
        ["dir/0.png", "0.500000", "0.750000", "0.000000"],
        ["dir/1.png", "1.000000", "0.000000", "1.000000"],
    ]
    assert "| class |" not in text


def test_predictions_of_values_are_the_values(tmp_path):
    logits = np.array([[1.5], [-0.25]], np.float32)
    evaluation = Evaluation({"loss": 1.0, "mae": 0.5}, logits, np.array([1, 0], np.float32), np.arange(2), 2)
    _, rows = _write(tmp_path, evaluation, "regression", ("age",))
    assert rows == [["name", "value"], ["dir/0.png", "1.500000"], ["dir/1.png", "-0.250000"]]


def test_a_report_with_names_of_any_script_is_written_where_the_locale_knows_ascii_only(tmp_path):
    code = """
import locale, sys
from pathlib import Path
import numpy as np
from jaxft.data.sources import Arrays
from jaxft.evaluate import Evaluation
from jaxft.report import judge, write_report
from jaxft.tasks import get_task
assert locale.getpreferredencoding(False) != "UTF-8"
task, names = get_task("classify", 2), ("\\u732b", "dog")
evaluation = Evaluation({"loss": 0.0, "accuracy": 1.0}, np.eye(2), np.arange(2), np.arange(2), 2)
judged = judge(evaluation, task, names)
source = Arrays(np.zeros((2, 2, 2)), np.arange(2), ["\\u732b.png", "dog.png"])
write_report(Path(sys.argv[1]), judged, judged, evaluation, source, task, names, title="t", split="test", step=1)
"""
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", code, str(tmp_path)]
    subprocess.run(command, check=True, env={**os.environ, "JAX_PLATFORMS": "cpu", **ascii_only})
    assert "猫.png,猫,猫" in (tmp_path / "predictions.csv").read_text(encoding="utf-8")
    assert "| 猫 | 1 |" in (tmp_path / "report.md").read_text(encoding="utf-8")


def _sheet(path, images, truths, guesses, columns=6):
    draw_samples(path, images, truths, guesses, [0.5] * len(images), columns=columns)
    with Image.open(path) as opened:
        assert opened.format == "PNG"
        assert opened.mode == "RGB"
        return np.asarray(opened)


def _corner(index, columns=6):
    """Top and left of a cell's picture."""
    row, column = divmod(index, columns)
    return GAP + row * (CELL + TEXT + GAP), GAP + column * (CELL + GAP)


def _cell(sheet, index, columns=6):
    top, left = _corner(index, columns)
    return sheet[top : top + CELL, left : left + CELL]


def _caption(sheet, index, columns=6):
    top, left = _corner(index, columns)
    return sheet[top + CELL + 2 : top + CELL + TEXT, left : left + CELL]


def _has(pixels, colour):
    return bool((pixels == np.array(colour, np.uint8)).all(-1).any())


def _framed(sheet, index, columns=6):
    """Whether the two pixels around a picture are red, all the way round; False only if none is."""
    top, left = _corner(index, columns)
    around = sheet[top - 2 : top + CELL + 2, left - 2 : left + CELL + 2].copy()
    inside = np.zeros(around.shape[:2], bool)
    inside[2:-2, 2:-2] = True
    red = (around == np.array(RED, np.uint8)).all(-1)[~inside]
    assert red.all() or not red.any()
    return bool(red.all())


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 6, 1), (6, 6, 1), (7, 6, 2), (5, 2, 3)])
def test_the_sheet_has_a_cell_an_image_in_rows(tmp_path, count, columns, rows):
    images = [np.full((20, 30, 3), 10 + number, np.uint8) for number in range(count)]
    sheet = _sheet(tmp_path / "s.png", images, ["a"] * count, ["a"] * count, columns)
    assert sheet.shape == (rows * (CELL + TEXT + GAP) + GAP, columns * (CELL + GAP) + GAP, 3)
    for number in range(count):
        assert (_cell(sheet, number, columns) == 10 + number).all()
    for number in range(count, rows * columns):
        assert (_cell(sheet, number, columns) == 255).all()


def test_what_is_wrong_is_framed_and_written_in_red_and_what_is_right_is_not(tmp_path):
    images = [np.full((50, 50, 3), 128, np.uint8)] * 8
    truths, guesses = list("abcdabcd"), list("abxdaxcx")
    sheet = _sheet(tmp_path / "s.png", images, truths, guesses)
    for number, (truth, guess) in enumerate(zip(truths, guesses, strict=True)):
        wrong = truth != guess
        assert _framed(sheet, number) is wrong, number
        caption = _caption(sheet, number)
        assert _has(caption, RED) is wrong
        assert _has(caption, GREEN) is not wrong
        assert bool((caption[14:] != 255).any()) is wrong  # the truth, in the second line
        assert (_cell(sheet, number) == 128).all()


def test_grey_tiny_wide_and_tall_pictures_fill_their_cells(tmp_path):
    grey = np.full((9, 9, 1), 77, np.uint8)
    pixel = np.array([[[1, 2, 3]]], np.uint8)
    left_right = np.zeros((4, 600, 3), np.uint8)
    left_right[:, 300:] = 200
    tall = np.zeros((600, 1, 3), np.uint8)
    tall[300:] = 200
    images = [grey, pixel, left_right, tall, np.full((3, 3, 4), 9, np.uint8)]
    sheet = _sheet(tmp_path / "s.png", images, list("abcde"), list("abcde"))
    assert (_cell(sheet, 0) == 77).all()
    assert (_cell(sheet, 1) == (1, 2, 3)).all()
    wide, high = _cell(sheet, 2), _cell(sheet, 3)
    assert (wide[:, :50] == 0).all()
    assert (wide[:, -50:] == 200).all()
    assert (high[:50] == 0).all()
    assert (high[-50:] == 200).all()
    assert (_cell(sheet, 4) == 9).all()


def test_long_names_are_cut_to_their_cell_and_other_scripts_are_drawn(tmp_path):
    images = [np.zeros((5, 5, 3), np.uint8)] * 3
    names = ["a very long name of a class " * 4, "W" * 60, "été"]
    sheet = _sheet(tmp_path / "s.png", images, ["x"] * 3, names)
    for number in range(3):
        caption = _caption(sheet, number)
        assert (caption != 255).any()
        top, left = _corner(number)
        # Two pixels for what a slanted glyph leans over its width; the rest of the gap is paper.
        assert (sheet[top + CELL + 2 : top + CELL + TEXT, left + CELL + 2 : left + CELL + GAP] == 255).all()


def test_samples_are_spread_evenly_over_the_split_in_its_order(tmp_path):
    size = 100
    images = np.broadcast_to(np.arange(size, dtype=np.uint8)[:, None, None], (size, 6, 6))
    source = Arrays(images, np.zeros(size, np.int32), [str(number) for number in range(size)])
    labels = np.arange(size) % 2
    logits = np.stack([np.ones(size), np.zeros(size)], -1).astype(np.float32)
    evaluation = Evaluation({}, logits, labels, np.arange(size), size)
    write_samples(tmp_path / "s.png", evaluation, source, get_task("classify", 2), ("even", "odd"))
    with Image.open(tmp_path / "s.png") as opened:
        sheet = np.asarray(opened)
    shown = [int(_cell(sheet, number)[50, 50, 0]) for number in range(24)]
    assert shown[0] == 0
    assert shown[-1] == 99
    assert set(np.diff(shown)) <= {4, 5}
    for number, example in enumerate(shown):
        assert _framed(sheet, number) is (example % 2 == 1)


def test_a_split_smaller_than_the_sheet_is_shown_whole_by_its_own_pictures(tmp_path):
    images = [np.full((5, 7), 40, np.uint8), np.full((9, 3, 3), 90, np.uint8), np.full((1, 1), 140, np.uint8)]
    source = Arrays(images, np.zeros(3, np.int32), list("abc"))
    evaluation = Evaluation({}, np.eye(2, dtype=np.float32)[[0, 1]], np.array([0, 1]), np.array([1, 2]), 2)
    write_samples(tmp_path / "s.png", evaluation, source, get_task("classify", 2), ("x", "y"))
    with Image.open(tmp_path / "s.png") as opened:
        sheet = np.asarray(opened)
    assert [int(_cell(sheet, number)[50, 50, 0]) for number in range(3)] == [90, 140, 255]


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_tasks_without_one_answer_get_no_sheet(tmp_path, task):
    evaluation = Evaluation({}, np.zeros((2, 2)), np.zeros((2, 2)), np.arange(2), 2)
    write_samples(tmp_path / "s.png", evaluation, _source(2), get_task(task, 2), ("x", "y"))
    assert not (tmp_path / "s.png").exists()


def test_soft_labels_are_judged_and_written_as_the_class_with_the_largest_share(tmp_path):
    hard = _classified()
    shares = np.full((40, 3), 0.2, np.float32)
    shares[np.arange(40), hard.labels] = 0.6
    soft = Evaluation(hard.metrics, hard.logits, shares, hard.index, 40)
    assert _judged(soft, "soft") == _judged(hard)
    source, written = _source(40), {}
    for name, evaluation in (("classify", hard), ("soft", soft)):
        judged, task = _judged(evaluation, name), get_task(name, 3)
        write_report(tmp_path / name, judged, judged, evaluation, source, task, NAMES, title="t", split="test", step=1)
        write_samples(tmp_path / name / "samples.png", evaluation, source, task, NAMES)
        written[name] = {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
    assert written["soft"] == written["classify"]
    assert len(written["soft"]) == 4
