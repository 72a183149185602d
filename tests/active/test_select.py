"""The command on a real run: pictures in, a list of pictures out."""

import csv
import dataclasses
import io
import json
import shutil

import jax
import numpy as np
import pytest
from small_run import write_small_recipe

from jaxft import tree
from jaxft.active import METHODS, badge, entropy, k_center_greedy, select, select_files
from jaxft.cli.config import read_config
from jaxft.cli.main import USAGE, main
from jaxft.data import read_eval
from jaxft.errors import JaxftError
from jaxft.evaluate.scores import softmax
from jaxft.predict import predict_files
from jaxft.run import train
from jaxft.workdir import load_run

pytestmark = pytest.mark.usefixtures("one_device", "quick_compiles")


@pytest.fixture(scope="module")
def runs(photos, tmp_path_factory, one_device, quick_compiles):
    """Workdirs of runs with a linear head and with an "mlp" one."""
    folder = tmp_path_factory.mktemp("runs")
    recipe = write_small_recipe(folder / "small.py", photos)
    for head in ("linear", "mlp"):
        assert train(read_config(str(recipe), [f"--config.model.head={head}"]), folder / head).status == "finished"
    return folder


@pytest.fixture(scope="module")
def unlabelled(photos, tmp_path_factory):
    """Pictures of all classes in one folder, and one that is none."""
    folder = tmp_path_factory.mktemp("unlabelled")
    for picture in sorted(photos.rglob("*.png")):
        shutil.copy(picture, folder / f"{picture.parent.name}-{picture.name}")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def _read(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_entropy_lists_the_least_certain_first_and_says_what_it_left_out(runs, unlabelled, capsys):
    assert main(["select", f"--workdir={runs / 'linear'}", str(unlabelled), "--count=5", "--method=entropy"]) == 0
    out, err = capsys.readouterr()
    rows = _read(out)
    said = predict_files(load_run(runs / "linear"), [unlabelled])
    scores = entropy(softmax(said.logits))
    order = np.argsort(-scores, kind="stable")[:5]
    assert [row["path"] for row in rows] == [said.names[index] for index in order]
    assert [float(row["score"]) for row in rows] == pytest.approx(scores[order].tolist(), rel=1e-4)
    likely = softmax(said.logits)[order]
    assert [row["class"] for row in rows] == [("circle", "cross", "dots")[index] for index in likely.argmax(-1)]
    assert [float(row["probability"]) for row in rows] == pytest.approx(likely.max(-1).tolist(), abs=1e-4)
    assert err == f"left out: {unlabelled / 'broken.png'}: not a picture in a known format\n"


def _last_layer(tuned, paths):
    """(what the last layer reads, its logits), computed by hand from the pictures and the parameters."""
    pixels = np.stack([read_eval(path, tuned.model.preprocessing, 3) for path in paths])
    features = np.asarray(tuned.apply(tuned.params, tuned.model_state, pixels, train=False, rng=None)[0]["features"])
    flat = {path: np.asarray(leaf) for path, leaf in tree.flatten(tuned.params).items()}
    if "head/kernel" in flat:
        return features, features @ flat["head/kernel"] + flat["head/bias"]
    hidden = np.maximum(features @ flat["head/hidden/kernel"] + flat["head/hidden/bias"], 0)
    return hidden, hidden @ flat["head/out/kernel"] + flat["head/out/bias"]


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_badge_is_of_what_the_last_layer_reads(runs, unlabelled, head):
    tuned = load_run(runs / head)
    paths = sorted(path for path in unlabelled.iterdir() if path.name != "broken.png")
    features, logits = _last_layer(tuned, paths)
    chosen, _ = badge(softmax(logits), features, 8, seed=1)
    found = select_files(runs / head, [unlabelled], 8, method="badge", seed=1)
    assert found.names == tuple(str(paths[index]) for index in chosen)
    assert found.names == select_files(runs / head, [unlabelled], 8, method="badge", seed=1).names
    assert found.names != select_files(runs / head, [unlabelled], 8, method="badge", seed=2).names


def test_coreset_begins_with_what_the_run_was_trained_on(runs, photos, unlabelled):
    tuned = load_run(runs / "linear")
    trained = json.loads((runs / "linear" / "splits.json").read_text())["splits"]["train"]
    labelled, _ = _last_layer(tuned, [photos / name for name in trained])
    paths = sorted(path for path in unlabelled.iterdir() if path.name != "broken.png")
    features, _ = _last_layer(tuned, paths)
    chosen, distances = k_center_greedy(features, labelled, 4)
    found = select_files(runs / "linear", [unlabelled], 4, method="coreset")
    assert found.names == tuple(str(paths[index]) for index in chosen)
    np.testing.assert_allclose(found.scores, distances, rtol=1e-3)
    known = {name.replace("/", "-") for name in trained}
    assert not {name.rsplit("/", 1)[1] for name in found.names} & known  # the same pictures, at no distance


@pytest.mark.parametrize("method", METHODS)
def test_all_are_listed_where_there_are_fewer_than_asked_for(runs, unlabelled, tmp_path, capsys, method):
    few = sorted(unlabelled.glob("dots-*"))[:3]
    command = ["select", f"--workdir={runs / 'linear'}", *map(str, few), "--count=10", f"--method={method}"]
    assert main([*command, f"--output={tmp_path / 'next.csv'}"]) == 0
    assert capsys.readouterr().err == "there are 3 pictures, fewer than the 10 asked for: all are listed\n"
    assert {row["path"] for row in _read((tmp_path / "next.csv").read_text())} == set(map(str, few))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--count=3", "--method=margn"], "no selection is called 'margn' (did you mean 'margin'?); there are entropy, margin"),
        (["--count=0"], "the count is 0: it must be at least 1"),
        (["--count=3", "--output=/nowhere/next.csv"], "cannot write /nowhere/next.csv: no folder '/nowhere'"),
        (["--count=3", "--method=entropy", "nowhere.png"], "no picture or folder 'nowhere.png'"),
    ],
)
def test_what_does_not_fit_is_said(runs, unlabelled, capsys, arguments, message):
    if "nowhere.png" not in arguments:
        arguments = [*arguments, str(unlabelled)]
    assert main(["select", f"--workdir={runs / 'linear'}", *arguments]) == USAGE
    assert message in capsys.readouterr().err


def test_labels_of_other_kinds_and_no_readable_picture_are_said(runs, unlabelled, monkeypatch):
    with pytest.raises(JaxftError, match="none of the 1 pictures can be read; .*broken.png: not a picture"):
        select_files(runs / "linear", [unlabelled / "broken.png"], 1)
    several = dataclasses.replace(load_run(runs / "linear"), task="multilabel")
    monkeypatch.setattr(select, "load_run", lambda workdir: several)
    with pytest.raises(JaxftError, match="the run's task is 'multilabel': pictures are chosen by the probabilities of classes"):
        select_files(runs / "linear", [unlabelled], 1)


def test_the_order_does_not_depend_on_devices(runs, unlabelled):
    assert jax.device_count() == 8  # predictions are made on all of them
    one = select_files(runs / "linear", [unlabelled], 6, method="margin", batch_size=8)
    other = select_files(runs / "linear", [unlabelled], 6, method="margin", batch_size=32)
    assert one.names == other.names
