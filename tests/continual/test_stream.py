"""Streams of tiny tasks: ordinary runs one after the other, stopped and gone on with, and what becomes of the earlier ones."""

import json

import jax
import numpy as np
import pytest
from PIL import Image
from small_run import write_small_recipe

from jaxft import continual, tree
from jaxft.cli.config import read_config
from jaxft.cli.main import main
from jaxft.continual import learn
from jaxft.continual.stream import IMPORTANCE
from jaxft.errors import JaxftError
from jaxft.fixed import read_importance
from jaxft.predict import evaluate_run
from jaxft.run import train
from jaxft.workdir import load_run

pytestmark = pytest.mark.usefixtures("quick_compiles", "one_device")

COLOURS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200), "grey": (120, 120, 120)}


@pytest.fixture(scope="module")
def small(made_once, photos):
    """A recipe, and beside it two tasks of two classes each, told apart by their colours."""

    def make(folder):
        config = write_small_recipe(folder / "small.py", photos)
        rng = np.random.default_rng(5)
        for task, names in (("first", ("red", "green")), ("second", ("blue", "grey"))):
            for name in names:
                (folder / task / name).mkdir(parents=True)
                for number in range(20):
                    pixels = np.clip(rng.normal(COLOURS[name], 25, (16, 16, 3)), 0, 255).astype(np.uint8)
                    Image.fromarray(pixels).save(folder / task / name / f"{number}.png")
        return config

    return made_once("stream", make) / "small.py"


def _tasks(small):
    return [str(small.parent / "first"), str(small.parent / "second")]


def _config(small):
    config = read_config(str(small))
    config.phases.phase1.length, config.phases.phase1.lr = "24 steps", 0.05
    config.train.eval_every = "24 steps"
    return config


@pytest.fixture(scope="module")
def streams(made_once, small):
    """Each method's stream, made once."""

    def make(folder):
        for method, strength in (("finetune", None), ("replay", None), ("ewc", 1000.0), ("lwf", 4.0), ("l2_sp", 5.0)):
            learn(_config(small), _tasks(small), folder / method, method=method, strength=strength)

    return made_once("streams", make)


def _figures(streams, method):
    return json.loads((streams / method / "continual.json").read_text())


def test_plain_fine_tuning_forgets_and_replay_forgets_less(streams):
    plain = _figures(streams, "finetune")
    rows = plain["accuracy"]["rows"]
    assert rows[0][0] > 0.9
    assert rows[1][1] > 0.9
    assert rows[1][0] < 0.2  # among all classes it says the new ones
    assert plain["accuracy"]["forgetting"] > 0.7
    assert rows[0][1] is None
    judged = evaluate_run(streams / "finetune" / "task2", split="test").judged
    assert judged.figures["accuracy"] == pytest.approx(rows[1][1])
    replay = _figures(streams, "replay")
    assert replay["accuracy"]["forgetting"] < 0.3
    assert replay["accuracy"]["average"] > plain["accuracy"]["average"]


def test_each_task_begins_where_the_one_before_ended_and_the_head_has_all_classes(streams):
    for method in ("finetune", "ewc", "lwf", "replay", "l2_sp"):
        config = json.loads((streams / method / "task2" / "config.json").read_text())
        assert config["model"]["pretrained"] == f"run:{streams / method / 'task1'}"
        assert load_run(streams / method / "task2").class_names == ("green", "red", "blue", "grey")
    figures = json.loads((streams / "ewc" / "task2" / "config.json").read_text())
    assert figures["loss"] == {"name": "ewc", "options": {"strength": 1000.0}}
    lwf = json.loads((streams / "lwf" / "task2" / "config.json").read_text())
    assert lwf["loss"]["options"] == {"classes": [0, 1], "temperature": 2.0, "weight": 0.5}
    l2_sp = json.loads((streams / "l2_sp" / "task2" / "config.json").read_text())["optim"]
    assert (l2_sp["l2_sp"], l2_sp["l2_sp_head"], l2_sp["weight_decay"]) == (5.0, None, 0.0)


def test_l2_sp_stays_near_the_network_before_with_its_head_too(streams):
    def way(method, kernels):
        start, end = (tree.flatten(load_run(streams / method / f"task{number}").params) for number in (1, 2))
        return sum(float(((end[path] - start[path]) ** 2).sum()) for path in start if path.endswith("kernel") and kernels(path))

    for part in (lambda path: path.startswith("head"), lambda path: not path.startswith("head")):
        assert 0 < way("l2_sp", part) < 0.5 * way("finetune", part)


def test_ewc_moves_what_matters_less_than_plain_fine_tuning_does(streams):
    """Weighed by the importances, the way from the first task's network is shorter."""
    importance = read_importance(streams / "ewc" / "task1" / IMPORTANCE)
    assert {*importance} == {*tree.paths(load_run(streams / "ewc" / "task1").params)}

    def way(method):
        start, end = (tree.flatten(load_run(streams / method / f"task{number}").params) for number in (1, 2))
        return sum(float((importance[path] * (end[path] - start[path]) ** 2).sum()) for path in importance)

    assert way("ewc") < 0.7 * way("finetune")


def test_the_importances_of_later_tasks_are_added_up(small, tmp_path):
    tasks = [*_tasks(small), str(small.parent / "first")]
    config = _config(small)
    config.phases.phase1.length = "2 steps"
    learn(config, tasks, tmp_path / "stream", method="ewc", gamma=0.5, examples=7)
    once, twice = (read_importance(tmp_path / "stream" / f"task{number}" / IMPORTANCE) for number in (1, 2))
    assert all((twice[path] >= 0.5 * once[path] - 1e-9).all() for path in once)
    assert any((twice[path] > 0.5 * once[path] + 1e-9).any() for path in once)
    assert not (tmp_path / "stream" / "task3" / IMPORTANCE).exists()  # no task comes after it


@pytest.mark.parametrize("method", ["ewc", pytest.param("replay", marks=pytest.mark.slow)])
def test_a_stream_that_was_stopped_goes_on_to_the_same_bits(small, streams, tmp_path, monkeypatch, method):
    strength = 1000.0 if method == "ewc" else None

    unbroken = learn(_config(small), _tasks(small), tmp_path / "unbroken", method=method, strength=strength)
    broken = _config(small)

    def interrupted(config, workdir, **options):
        """The first twelve steps of the second task, then as if a signal came."""
        if workdir.name != "task2":
            return train(config, workdir, **options)
        with monkeypatch.context() as patched:
            asked = iter([False] * 11 + [True] * 100)
            patched.setattr("jaxft.progress.StopSignals.asked_at", lambda self, step: next(asked))
            return train(config, workdir, **options)

    monkeypatch.setattr(continual.stream, "train", interrupted)
    first = learn(broken, _tasks(small), tmp_path / "broken", method=method, strength=strength)
    assert (first.status, len(first.accuracy)) == ("interrupted", 1)
    monkeypatch.setattr(continual.stream, "train", train)
    second = learn(broken, _tasks(small), tmp_path / "broken", method=method, strength=strength)
    assert second.status == "finished"
    np.testing.assert_array_equal(second.accuracy, unbroken.accuracy)
    ours, theirs = (load_run(tmp_path / name / "task2") for name in ("broken", "unbroken"))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(dict(ours.params)), jax.device_get(dict(theirs.params)))


def test_a_finished_stream_is_read_and_no_run_begins(small, streams, monkeypatch):
    monkeypatch.setattr(continual.stream, "train", None)
    again = learn(_config(small), _tasks(small), streams / "finetune")
    assert again.status == "finished"
    assert again.to_json().strip() == (streams / "finetune" / "continual.json").read_text().strip()


def test_drifting_data_have_the_same_classes_and_one_table(small, tmp_path, capsys):
    """The command line."""
    source = str(small.parent / "first")
    given = ["continual", f"--config={small}", f"--workdir={tmp_path / 'drift'}", f"--task={source}", f"--task={source}"]
    assert main([*given, "--config.phases.phase1.length=2 steps", "--method=lwf", "--strength=1"]) == 0
    shown = capsys.readouterr().out
    assert "among all classes so far" in shown
    assert "the task's own classes" not in shown
    assert "forgetting" in (tmp_path / "drift" / "continual.md").read_text()
    assert main(["eval", f"--workdir={tmp_path / 'drift' / 'task2'}", "--split=test"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "ewk"}, "no method is called 'ewk' .did you mean 'ewc'"),
        ({"method": "replay", "strength": 1.0}, "the method 'replay' takes no strength"),
        ({"method": "ewc", "strength": -1.0}, "'ewc' needs a strength of at least 0"),
        ({"method": "ewc", "gamma": 2.0}, "gamma .2.0. between 0 and 1"),
    ],
)
def test_what_does_not_fit_is_a_clear_error_and_leaves_nothing(small, tmp_path, options, message):
    with pytest.raises(JaxftError, match=message):
        learn(_config(small), _tasks(small), tmp_path / "stream", **options)
    assert not (tmp_path / "stream").exists()


def test_one_task_another_loss_and_another_stream_in_the_folder_are_clear_errors(small, streams, tmp_path):
    config = _config(small)
    with pytest.raises(JaxftError, match="at least two tasks, not 1"):
        learn(config, _tasks(small)[:1], tmp_path)
    config.loss.name = "focal"
    with pytest.raises(JaxftError, match="config.loss.name is 'focal', and the method 'ewc' sets it"):
        learn(config, _tasks(small), tmp_path, method="ewc")
    with pytest.raises(JaxftError, match="holds another stream"):
        learn(_config(small), _tasks(small)[::-1], streams / "finetune")
