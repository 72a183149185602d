"""From phase to phase in a real run: moments go on, counts stay right, also after a stop around the boundary."""

import json

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

import jaxft
from jaxft import run
from jaxft.cli.config import read_config
from jaxft.config import phase
from jaxft.optim.moments import Anchors, find
from jaxft.workdir import load_run

pytestmark = pytest.mark.usefixtures("one_device", "quick_compiles")

STEPS, BOUNDARY = 6, 2
SETTINGS = (
    "--config.train.checkpoint_every=1 steps",
    "--config.train.log_every=1 steps",
    "--config.train.eval_every=1 steps",
    "--config.train.accum_steps=1",
)
# No evaluation is a gain but the first: each later one halves the rate.
HALVES = {"patience": 0, "factor": 0.5, "threshold": 2.0, "threshold_mode": "abs"}


def _config(recipe, *more):
    config = read_config(str(recipe), [*SETTINGS, *more])
    config.phases.phase2 = phase(train="from:stage4", length="4 steps", lr=1e-2, schedule="plateau", schedule_options=HALVES)
    return config


def _everything(workdir):
    """All arrays of the newest checkpoint by path, and the metric log."""
    folder = max((workdir / "checkpoints").iterdir(), key=lambda path: int(path.name))
    arrays = {}
    for item in ("clock", "params", "model_state", "opt_state", "ema"):
        with ocp.PyTreeCheckpointer() as reader:
            restored = reader.restore((folder / item).absolute())
        for path, leaf in jax.tree_util.tree_flatten_with_path(restored)[0]:
            arrays[item + jax.tree_util.keystr(path, simple=True, separator="/")] = np.asarray(leaf)
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return int(folder.name), arrays, lines


def _stopped_at(monkeypatch, steps):
    """The run is asked to stop after each of these steps, once."""
    left = set(steps)
    monkeypatch.setattr(run.StopSignals, "asked_at", lambda self, step: step in left and not left.discard(step))


@pytest.fixture(scope="module")
def unbroken(recipe, tmp_path_factory, one_device, quick_compiles):
    """The workdir of a run, and the states before and after its second phase began."""
    seen, begin = [], run.begin

    def spied(plan, phase, config, mesh, checkpoints, before, standing, step):
        seen.append(jax.device_get(before))
        after = begin(plan, phase, config, mesh, checkpoints, before, standing, step)
        seen.append(jax.device_get(after))
        return after

    workdir = tmp_path_factory.mktemp("unbroken") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "begin", spied)
        assert run.train(_config(recipe), workdir).status == "finished"
    return _everything(workdir), seen


def _counts(arrays):
    """The counts of the optimizer's state, by the label of their generation, "" outside."""
    found = {}
    for path, leaf in arrays.items():
        if path.startswith("opt_state") and leaf.dtype == np.int32:
            found.setdefault(next((name for name in ("phase1", "phase2") if f"/{name}/" in path), ""), set()).add(int(leaf))
    return found


def test_moments_of_what_trained_go_on_and_new_ones_begin(unbroken):
    (step, arrays, _), (before, after) = unbroken
    assert step == STEPS
    moments = {name: state.opt_state for name, state in (("before", before), ("after", after))}
    flat = {
        name: {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]}
        for name, state in moments.items()
    }
    kept = [path for path in flat["before"] if "phase1" in path]
    assert len(kept) == 5  # two moments of two leaves, and their count
    for path in kept:
        np.testing.assert_array_equal(flat["after"][path], flat["before"][path], err_msg=path)
        assert np.any(flat["before"][path] != 0)
    new = [path for path in flat["after"] if "phase2" in path]
    assert len(new) == 2 * 9 + 1
    assert all(not np.any(flat["after"][path]) for path in new)
    # The head's count goes on; new moments, and the schedule, count from the phase's start.
    assert _counts(arrays) == {"phase1": {STEPS}, "phase2": {STEPS - BOUNDARY}, "": {STEPS - BOUNDARY}}


def test_plateau_lowers_the_rate_that_is_logged_and_the_one_that_is_used(unbroken):
    (_, arrays, lines), _ = unbroken
    rates = [line["lr"] for line in lines if "lr" in line]
    np.testing.assert_allclose(rates, [1e-2, 5e-3, 1e-2, 1e-2, 5e-3, 2.5e-3], rtol=1e-6)
    assert 0.125 in [float(leaf) for path, leaf in arrays.items() if path.startswith("opt_state") and leaf.shape == ()]


@pytest.mark.parametrize("stops", [(BOUNDARY - 1, BOUNDARY), (BOUNDARY + 1, BOUNDARY + 3)])
def test_a_run_stopped_around_the_boundary_goes_on_bit_for_bit(unbroken, recipe, tmp_path, monkeypatch, stops):
    _stopped_at(monkeypatch, stops)
    for stop in stops:
        result = run.train(_config(recipe), tmp_path / "run")
        assert (result.status, result.step) == ("interrupted", stop)
    assert run.train(_config(recipe), tmp_path / "run").status == "finished"
    (_, expected, lines), _ = unbroken
    _, found, logged = _everything(tmp_path / "run")
    assert found.keys() == expected.keys()
    for path, leaf in expected.items():
        np.testing.assert_array_equal(found[path], leaf, err_msg=path)
    assert logged == lines


def test_counts_stay_right_where_a_phase_ends_early_and_nothing_is_kept_where_that_is_off(recipe, tmp_path, capsys):
    early = ("--config.phases.phase1.length=5 steps", "--config.train.patience=1", "--config.train.min_delta=10.0")
    config = _config(recipe, *early)
    config.phases.phase2 = phase(train="from:stage4", length="1 steps", lr=1e-3)
    run.train(config, tmp_path / "run")
    step, arrays, _ = _everything(tmp_path / "run")
    # Two steps of five were made, and one more.
    assert (step, _counts(arrays)) == (6, {"phase1": {3}, "phase2": {1}, "": {1}})
    assert "moments of the optimizer go on for 2 of" in capsys.readouterr().out

    config.optim.keep_moments = False
    run.train(config, tmp_path / "other")
    _, arrays, _ = _everything(tmp_path / "other")
    assert _counts(arrays) == {"phase2": {1}, "": {1}}
    assert "moments" not in capsys.readouterr().out


def test_a_schedule_free_run_is_judged_saved_and_loaded_with_its_averages(recipe, tmp_path):
    config = _config(recipe)
    config.train.ema_decay = None
    config.optim.name, config.optim.schedule = "schedule_free_adamw", "constant"
    config.phases.phase1 = phase(train="head", length="3 steps", lr=1e-2)
    config.phases.phase2 = phase(train="head", length="0 steps")
    judged, weights_of = [], run.eval_weights

    def spied(state):
        found = weights_of(state)
        judged.append((int(state.step), jax.device_get(found[0]["fc"]), jax.device_get(state.params["fc"])))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "eval_weights", spied)
        result = run.train(config, tmp_path / "run")
    step, averaged, raw = judged[-1]
    assert np.abs(averaged["kernel"] - raw["kernel"]).max() > 1e-5
    loaded = load_run(tmp_path / "run", step=step)
    np.testing.assert_array_equal(loaded.params["fc"]["kernel"], averaged["kernel"])
    assert result.status == "finished"


def test_l2_sp_pulls_to_the_pretrained_values_also_in_a_later_phase(finished, recipe, tmp_path):
    workdir, _ = finished
    jaxft.export_run(workdir, tmp_path / "weights.safetensors")
    config = read_config(str(recipe), ["--config.train.accum_steps=1", "--config.optim.weight_decay=0.0"])
    config.model.pretrained = str(tmp_path / "weights.safetensors")
    config.optim.l2_sp = 0.1
    config.phases.phase1 = phase(train="from:stage4", length="1 steps", lr=0.1)
    config.phases.phase2 = phase(train="from:stage3", length="1 steps", lr=0.1)
    seen, begin = [], run.begin

    def spied(plan, phase, config, mesh, checkpoints, before, standing, step):
        seen.append(jax.device_get((plan.params, before.params)))
        after = begin(plan, phase, config, mesh, checkpoints, before, standing, step)
        seen.append(jax.device_get(after.opt_state))
        return after

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "begin", spied)
        run.train(config, tmp_path / "run")
    (pretrained, trained), opt_state = seen
    (anchors,) = find(opt_state, Anchors)
    assert {*anchors.start} == {"layer3", "layer4"}
    kernel = lambda params: params["layer4"]["0"]["conv1"]["kernel"]
    np.testing.assert_array_equal(kernel(anchors.start), kernel(pretrained))
    assert np.abs(kernel(trained) - kernel(pretrained)).max() > 1e-3
