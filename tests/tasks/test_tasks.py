"""Every kind of label has its loss and figures; soft labels go from a table through training to predictions."""

import csv

import numpy as np
import pytest

import jaxft
from jaxft.data.convert import convert_data
from jaxft.errors import JaxftError
from jaxft.predict import evaluate_run, format_predictions
from jaxft.run import train
from jaxft.tasks import get_task

pytestmark = pytest.mark.usefixtures("quick_compiles", "one_device")


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("classify", {"loss", "accuracy", "top5", "balanced_accuracy"}),
        ("soft", {"loss", "accuracy", "top5", "balanced_accuracy"}),
        ("multilabel", {"loss", "accuracy"}),
        ("regression", {"loss", "mae"}),
        ("unlabelled", {"loss"}),
    ],
)
def test_each_task_has_its_figures(name, figures):
    assert set(get_task(name, 9).metrics.__annotations__) == figures


def test_an_unknown_task_is_refused_with_the_nearest():
    with pytest.raises(JaxftError, match=r"no task is called 'sofd' \(did you mean 'soft'"):
        get_task("sofd", 3)


def test_the_loss_of_soft_labels_is_their_cross_entropy():
    logits, shares = np.array([[1.0, -2.0, 0.5], [0, 0, 0]]), np.array([[0.2, 0.3, 0.5], [1, 0, 0]])
    found = get_task("soft", 3).loss({"logits": logits}, {"label": shares})
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    np.testing.assert_allclose(found, -(shares * log_p).sum(-1), rtol=1e-6)


def test_soft_labels_train_and_are_judged_by_the_largest_share(photos, tmp_path):
    names = ("circle", "cross", "dots")
    rows = []
    for path in sorted(photos.rglob("*.png")):
        shares = [0.8 if path.parent.name == name else 0.1 for name in names]
        rows.append(f"{path},{','.join(map(str, shares))}")
    (tmp_path / "table.csv").write_text("\n".join([f"path,{','.join(names)}", *rows]) + "\n")
    convert_data(f"csv:{tmp_path / 'table.csv'}", tmp_path / "records", task="soft")
    config = jaxft.default_config()
    config.data.update(source=f"records:{tmp_path / 'records'}", task="soft", val_fraction=0.2, test_fraction=0.2)
    config.model.update(name="resnet10t", pretrained="", size=32)
    config.input.update(batch_size=8, augment="none")
    config.log.tensorboard = False
    config.phases.phase1 = jaxft.phase(train="head", length="6 steps", lr=1e-2)
    result = train(config, tmp_path / "run")
    assert result.after.figures["loss"] < result.before.figures["loss"]
    assert {"accuracy", "balanced_accuracy", "macro_f1"} <= result.after.figures.keys()
    assert [row["support"] for row in result.after.classes] == [2, 2, 2]
    assert (tmp_path / "run" / "samples.png").is_file()
    with (tmp_path / "run" / "predictions.csv").open() as file:
        written = list(csv.DictReader(file))
    assert len(written) == 6
    assert all(row["label"] in row["name"] for row in written)
    right = np.mean([row["label"] == row["predicted"] for row in written])
    assert right == pytest.approx(result.after.figures["accuracy"])
    assert evaluate_run(tmp_path / "run", data=f"csv:{tmp_path / 'table.csv'}").judged.count == 30
    tuned = jaxft.load_run(tmp_path / "run")
    predictions = jaxft.predict_files(tuned, [photos])
    assert predictions.logits.shape == (30, 3)
    line = format_predictions(predictions, tuned.class_names, tuned.task, style="csv").splitlines()[1]
    assert line.split(",")[1] in names
