"""The run from Python."""

import json

import numpy as np
import pytest

import jaxft
from jaxft.losses import focal
from jaxft.run import train

pytestmark = pytest.mark.usefixtures("one_device", "quick_compiles")


def test_finetune_is_a_call_of_the_run_and_its_network_predicts(photos, tmp_path):
    result = jaxft.finetune(
        photos,
        workdir=tmp_path / "run",
        size=32,
        epochs=4,
        lr=1e-2,
        batch_size=8,
        loss=focal,
        input={"augment": "none"},
        log={"tensorboard": False},
    )
    assert (result.status, result.split, result.step) == ("finished", "test", 12)
    assert result.after.count == 3
    assert result.after.figures["loss"] < result.before.figures["loss"]
    assert result.after.intervals["accuracy"][1] <= 1
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["loss"]["name"] == "jaxft.losses.supervised:focal"
    assert config["phases"]["phase1"]["train"] == "head"
    tuned = jaxft.load_run(tmp_path / "run")
    picture = sorted((photos / "cross").iterdir())[0]
    predictions = jaxft.predict_files(tuned, [picture])
    assert predictions.logits.shape == (1, 3)
    assert np.isfinite(predictions.logits).all()


@pytest.mark.parametrize(
    ("task", "columns", "model"),
    [
        ("multilabel", lambda path: f"{path.parent.name}{';even' if int(path.stem) % 2 == 0 else ''}", {"head": "mlp"}),
        ("regression", lambda path: path.stem, {"dtype": "bfloat16"}),
    ],
)
def test_tables_train_several_labels_and_numbers(photos, tmp_path, capsys, task, columns, model):
    rows = [f"{path},{columns(path)}" for path in sorted(photos.rglob("*.png"))]
    (tmp_path / "table.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    config = jaxft.default_config()
    config.data.update(source=f"csv:{tmp_path / 'table.csv'}", task=task)
    config.model.update(name="resnet10t", pretrained="", size=32, **model)
    config.input.update(batch_size=8, augment="none")
    config.train.update(monitor="loss", mode="min")
    config.log.tensorboard = False
    config.phases.phase1 = jaxft.phase(train="head", length="12 steps", lr=1e-2)
    result = train(config, tmp_path / "run")
    assert result.after.figures["loss"] < result.before.figures["loss"]
    assert "samples.png" not in capsys.readouterr().out
    header = (tmp_path / "run" / "predictions.csv").read_text().splitlines()[0]
    assert header == {"multilabel": "name,circle,cross,dots,even", "regression": "name,value"}[task]
    predictions = jaxft.predict_files(jaxft.load_run(tmp_path / "run"), [photos])
    assert predictions.logits.shape == (30, 4 if task == "multilabel" else 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": lambda outputs, batch: 0}, "cannot be imported by name: put it into a module of its own"),
        ({"optm": {"name": "sgd"}}, r"no argument or config section 'optm' \(did you mean 'optim'"),
        ({"epoch": 3}, r"no argument or config section 'epoch' \(did you mean 'epochs'"),
        ({"optim": {"nam": "sgd"}}, r"config.optim has no key 'nam' \(did you mean 'name'"),
        ({"model": "resnet51"}, "no network is called 'resnet51'"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_written(photos, tmp_path, options, message):
    with pytest.raises(jaxft.JaxftError, match=message):
        jaxft.finetune(photos, workdir=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_every_public_name_can_be_imported():
    for name in jaxft.__all__:
        assert callable(getattr(jaxft, name)), name
    with pytest.raises(AttributeError, match="no attribute 'fine_tune'"):
        _ = jaxft.fine_tune
