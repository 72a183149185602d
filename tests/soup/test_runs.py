"""Soups of real runs: what is written is a run like any other, and says what it was made of."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxft import predict, tree, workdir
from jaxft import run as running
from jaxft.cli.config import read_config
from jaxft.cli.main import USAGE, main
from jaxft.config import config_of
from jaxft.errors import JaxftError
from jaxft.export import export_run
from jaxft.parallel import make_mesh
from jaxft.plan import make_plan
from jaxft.predict import evaluate_run
from jaxft.run import train
from jaxft.soup import kitchen as kitchens
from jaxft.soup import soup_runs, wise_run
from jaxft.soup.kitchen import check_alike
from jaxft.workdir import load_run

pytestmark = pytest.mark.usefixtures("quick_compiles")

#: Two short runs that begin with the same weights, and train a BatchNorm and the head.
SETTINGS = (
    "--config.phases.phase1.train=head,layer4/0/bn2",
    "--config.phases.phase1.length=2 steps",
    "--config.phases.phase2.length=0 steps",
    "--config.train.accum_steps=1",
    "--config.train.ema_decay=0.5",
    "--config.model.drop_path=0.0",
)


@pytest.fixture(scope="module", autouse=True)
def one_of_the_devices():
    plain = [(module, module.make_mesh) for module in (running, kitchens, workdir, predict)]
    for module, _ in plain:
        module.make_mesh = lambda layout="": make_mesh(layout, jax.devices()[:1])
    yield
    for module, function in plain:
        module.make_mesh = function


@pytest.fixture(scope="module")
def runs(made_once, recipe, finished):
    """Two runs that began with the weights of `finished`, which trained the head alone; and those weights, a file."""

    def make(folder):
        base = folder / "base.safetensors"
        export_run(finished[0], base, to="jaxft")
        for seed in (0, 1):
            more = [f"--config.model.pretrained={base}", f"--config.seed={seed}"]
            assert train(read_config(str(recipe), [*SETTINGS, *more]), folder / f"run{seed}").status == "finished"

    folder = made_once("soup_runs", make)
    return folder / "run0", folder / "run1", finished[0]


def _leaves(run):
    return {
        f"{kind}/{path}": np.float64(leaf)
        for kind in ("params", "model_state")
        for path, leaf in tree.flatten(getattr(run, kind)).items()
    }


def _trained_norm(path):
    return path.startswith("model_state/batch_stats/layer4/0/bn2/")


def test_a_uniform_soup_is_the_mean_and_a_run_for_every_command(runs, tmp_path, capsys, photos):
    first, second, _ = runs
    out = tmp_path / "soup"
    assert main(["soup", str(first), str(second), f"--out={out}", "--no-update-bn", f"--json={tmp_path}/soup.json"]) == 0
    said = capsys.readouterr().out
    one, other, soup = (_leaves(load_run(path)) for path in (first, second, out))
    changed = 0
    for path, leaf in soup.items():
        np.testing.assert_allclose(leaf, (one[path] + other[path]) / 2, rtol=1e-6, atol=1e-7, err_msg=path)
        changed += not np.array_equal(one[path], other[path])
    assert changed == 6  # a BatchNorm and the head
    made_of = load_run(out).record["made_of"]
    judged = evaluate_run(out, split="val").judged.figures
    assert made_of["runs"] == [{"workdir": str(path), "step": load_run(path).step} for path in (first, second)]
    assert (made_of["kind"], made_of["statistics"], made_of["monitor"]) == ("uniform soup", "averaged", "accuracy")
    np.testing.assert_allclose(made_of["figure"], judged["accuracy"])
    assert f"uniform soup of 2: validation accuracy {judged['accuracy']:.4f}" in said
    assert json.loads((tmp_path / "soup.json").read_text())["made_of"] == made_of
    assert not (tmp_path / "soup.unfinished").exists()
    assert main(["predict", f"--workdir={out}", str(photos / "circle")]) == 0
    assert main(["eval", f"--workdir={out}", "--split=test"]) == 0
    assert main(["export", str(tmp_path / "soup.safetensors"), f"--workdir={out}"]) == 0


def test_nothing_is_trained_in_the_workdir_of_a_soup(runs, tmp_path):
    out = tmp_path / "soup"
    soup_runs([runs[0]], out)
    before = sorted(path for path in out.rglob("*") if path.name != ".lock")
    config = config_of(json.loads((runs[0] / "config.json").read_text()))
    with pytest.raises(JaxftError, match="the workdir holds a uniform soup of other runs, and no training to go on with"):
        train(config, out)
    assert sorted(path for path in out.rglob("*") if path.name != ".lock") == before


def test_statistics_that_were_frozen_are_not_computed_anew(runs):
    run = load_run(runs[0])
    plan = make_plan(config_of(run.record["config"]), weights=False)
    phases = {"phase1": {**run.record["config"]["phases"]["phase1"], "freeze": "statistics"}}
    kept = dataclasses.replace(run, record={**run.record, "config": {**run.record["config"], "phases": phases}})
    assert kitchens._moved([run], plan)("layer4/0/bn2")
    assert kitchens._moved([kept, run], plan)("layer4/0/bn2")
    assert not kitchens._moved([kept], plan)("layer4/0/bn2")


def test_where_a_batch_norm_trained_the_soup_has_statistics_of_its_own(runs, tmp_path):
    first, second, _ = runs
    averaged = soup_runs([first, second], tmp_path / "averaged", update_bn=False)
    updated = soup_runs([first, second], tmp_path / "updated")
    assert (averaged.made_of["statistics"], updated.made_of["statistics"]) == ("averaged", "recomputed")
    one, other = (_leaves(load_run(tmp_path / name)) for name in ("averaged", "updated"))
    for path, leaf in one.items():
        assert np.array_equal(leaf, other[path]) is not _trained_norm(path), path
    # Asked for, one run gets them too, and only they change.
    soup_runs([first], tmp_path / "one", update_bn=True)
    one, other = _leaves(load_run(first)), _leaves(load_run(tmp_path / "one"))
    for path, leaf in one.items():
        assert np.array_equal(leaf, other[path]) is not _trained_norm(path), path


def test_a_greedy_soup_judges_no_worse_than_the_best_run(runs, tmp_path):
    first, second, head = runs
    out = tmp_path / "soup"
    found = soup_runs([first, second, head], out, greedy=True)
    alone = [evaluate_run(path, split="val").judged.figures["accuracy"] for path in runs]
    chosen = [entry["workdir"] for entry in found.made_of["runs"]]
    assert found.made_of["figure"] >= max(alone)
    assert chosen[0] == str(runs[int(np.argmax(alone))])
    np.testing.assert_allclose(evaluate_run(out, split="val").judged.figures["accuracy"], found.made_of["figure"])
    params = [_leaves(load_run(path)) for path in chosen]
    for path, leaf in _leaves(load_run(out)).items():
        if path.startswith("params/"):
            np.testing.assert_allclose(leaf, np.mean([one[path] for one in params], axis=0), rtol=1e-6, atol=1e-7, err_msg=path)
    assert [row[0] for row in found.rows][:4] == ["run", *map(str, runs)]
    assert "these runs did not begin with the same weights" in str(found)


def test_wise_goes_from_the_pretrained_weights_with_the_fine_tuned_head_to_the_run(runs, tmp_path):
    tuned, base = load_run(runs[0]), load_run(runs[2])  # the pretrained file is the run of the head
    wise_run(runs[0], tmp_path / "wise", alpha=0.25, update_bn=False)
    end, start = _leaves(tuned), _leaves(base)
    for path, leaf in _leaves(load_run(tmp_path / "wise")).items():
        begin = end[path] if path.startswith("params/fc/") else start[path]
        np.testing.assert_allclose(leaf, 0.75 * begin + 0.25 * end[path], rtol=1e-5, atol=1e-6, err_msg=path)
    made_of = load_run(tmp_path / "wise").record["made_of"]
    assert (made_of["kind"], made_of["alpha"], made_of["statistics"]) == ("WiSE-FT", 0.25, "averaged")


def test_the_mean_of_adapters_is_that_of_the_kernels_they_make(lora_run, finished, tmp_path):
    merged, other = load_run(lora_run).merged(), load_run(finished[0])
    assert soup_runs([lora_run], tmp_path / "alone").made_of["kind"] == "uniform soup"
    alone = load_run(tmp_path / "alone")
    assert alone.model.adapter is None
    wise_run(lora_run, tmp_path / "wise", alpha=0.5, start=finished[0], update_bn=False)
    found, ends = _leaves(load_run(tmp_path / "wise")), (_leaves(merged), _leaves(other))
    assert found.keys() == ends[0].keys()
    for path, leaf in found.items():
        np.testing.assert_allclose(leaf, (ends[0][path] + ends[1][path]) / 2, rtol=1e-5, atol=1e-6, err_msg=path)
        np.testing.assert_array_equal(_leaves(alone)[path], ends[0][path], err_msg=path)


def test_a_sweep_begins_at_the_start_run_ends_at_the_run_and_writes_the_best(runs, tmp_path, capsys):
    tuned, _, head = runs
    out = tmp_path / "best"
    assert main(["soup", str(tuned), "--wise=sweep", f"--start={head}", f"--out={out}", "--json=-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["alpha"] for row in found["judged"]] == [f"{step / 10:g}" for step in range(11)]
    for row, path in ((found["judged"][0], head), (found["judged"][-1], tuned)):
        for name, value in evaluate_run(path, split="val").judged.figures.items():
            if name in row:
                np.testing.assert_allclose(float(row[name]), value, atol=6e-5)
    figures = [float(row["accuracy"]) for row in found["judged"]]
    best = max(place for place, figure in enumerate(figures) if figure == max(figures))
    assert found["made_of"]["alpha"] == best / 10
    np.testing.assert_allclose(evaluate_run(out, split="val").judged.figures["accuracy"], figures[best], atol=6e-5)
    assert load_run(out).record["made_of"]["start"] == str(head)


def test_runs_that_do_not_go_together_are_clear_errors(runs):
    one = load_run(runs[0])

    def other(**changes):
        return dataclasses.replace(one, record={**one.record, **changes})

    wide = other(model={**one.record["model"], "num_classes": 5})
    wide = dataclasses.replace(wide, model=dataclasses.replace(one.model, num_classes=5))
    for changed, said in (
        (wide, "a and b are other networks, resnet10t with 3 outputs and resnet10t with 5 outputs"),
        (other(class_names=["a", "b", "c"]), "b has other classes than a"),
        (other(task="soft"), "b has another task than a"),
        (other(data_fingerprint="0"), "b was trained on other data than a, or on another split of them"),
    ):
        with pytest.raises(JaxftError, match=said):
            check_alike("a", one, "b", changed)
    check_alike("a", one, "b", other(model={**one.record["model"], "drop_path": 0.3}))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["{head}"], "a soup needs --out=FOLDER"),
        (["{head}", "--start={run}", "--out=x"], "--start is for --wise"),
        (["{run}", "{head}", "--wise=0.5", "--out=x"], "--wise takes one run"),
        (["{run}", "--wise=half", "--out=x"], "--wise is 'half': a number between 0 and 1"),
        (["{run}", "--wise=0.5"], "--wise=ALPHA needs --out=FOLDER"),
        (["{run}", "--wise=1.5", "--out=x"], "alpha is 1.5: it must lie between 0"),
        (["{run}", "--out={run}"], "is there already and not empty: give another --out"),
        (["{run}", "--out=gs://bucket/soup"], "lies in a bucket: give a local --out"),
        (["nowhere", "--out=x"], "no run in nowhere"),
        (["{head}", "--out=x", "--update-bn"], "no run trained a BatchNorm"),
        (["{head}", "--wise=0.5", "--out=x"], "began with random weights: give a run to begin with, --start=RUN"),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(runs, options, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["soup", *(option.format(run=runs[0], head=runs[2]) for option in options)]) == USAGE
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error
    assert not list(tmp_path.iterdir())
