"""A phase that stops early gives the next one the weights of the best checkpoint; also after a stop at the boundary."""

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxft import run
from jaxft.cli.config import read_config
from jaxft.parallel import make_mesh
from jaxft.workdir import load_run

pytestmark = pytest.mark.usefixtures("quick_compiles")

# No evaluation after the first is a gain of 100: step 1 is the best, and after two more the phase ends. The second phase is too
# slow to change a bit, and trains no norm: its newest checkpoint holds the weights it began with.
SETTINGS = (
    "--config.phases.phase1.length=6 steps",
    "--config.phases.phase1.train=head",
    "--config.phases.phase1.lr=0.1",
    "--config.phases.phase2.length=2 steps",
    "--config.phases.phase2.train=head",
    "--config.phases.phase2.lr=1e-30",
    "--config.train.eval_every=1 steps",
    "--config.train.patience=2",
    "--config.train.min_delta=100",
    "--config.train.accum_steps=1",
)


def _config(recipe, *more):
    return read_config(str(recipe), [*SETTINGS, "--config.train.restore_best=True", *more])


def _leaves(workdir):
    """All arrays of the newest checkpoint, and the metric log."""
    found = {}
    for item in ("clock", "params", "model_state", "opt_state", "ema"):
        with ocp.PyTreeCheckpointer() as reader:
            restored = reader.restore((workdir / "checkpoints" / "8" / item).absolute())
        found |= {item + jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(restored)[0]}
    return found, (workdir / "metrics.jsonl").read_bytes()


def _equal(workdir):
    """Whether the newest checkpoint holds the weights of the best one."""
    best, newest = load_run(workdir, step=1), load_run(workdir, step=8)
    pairs = zip(*(jax.tree.leaves((one.params, one.model_state)) for one in (best, newest)), strict=True)
    return all(np.array_equal(*pair) for pair in pairs)


@pytest.fixture
def on(monkeypatch):
    def choose(layout, count):
        monkeypatch.setattr(run, "make_mesh", lambda _: make_mesh(layout, jax.devices()[:count]))

    return choose


@pytest.mark.parametrize(
    ("layout", "devices", "more"),
    [
        ("", 1, ()),
        (
            "2x2x1",
            4,
            (
                "--config.phases.phase1.train=from:stage4",
                "--config.train.monitor=loss",
                "--config.train.mode=min",
                "--config.train.ema_decay=0.5",
            ),
        ),
    ],
)
def test_the_next_phase_begins_with_the_weights_that_judged_best(recipe, tmp_path, on, layout, devices, more, capsys):
    on(layout, devices)
    result = run.train(_config(recipe, *more), tmp_path / "run")
    assert (result.status, result.step, result.best_step) == ("finished", 8, 1)
    assert "phase1 stops early: 2 evaluations without a gain" in capsys.readouterr().out
    assert _equal(tmp_path / "run")


def test_without_it_the_next_phase_begins_with_the_latest_weights(recipe, tmp_path, on):
    on("", 1)
    run.train(_config(recipe, "--config.train.restore_best=False"), tmp_path / "run")
    assert not _equal(tmp_path / "run")


def test_a_run_that_ends_at_the_boundary_goes_on_bit_equal(recipe, tmp_path, on, monkeypatch):
    on("", 1)
    assert run.train(_config(recipe), tmp_path / "whole").status == "finished"

    def end(*arguments):
        raise RuntimeError("ended at the boundary")

    with monkeypatch.context() as patched:
        patched.setattr(run, "begin", end)
        with pytest.raises(RuntimeError, match="ended at the boundary"):
            run.train(_config(recipe), tmp_path / "broken")
    assert {path.name for path in (tmp_path / "broken" / "checkpoints").iterdir()} >= {"1", "6"}
    assert run.train(_config(recipe), tmp_path / "broken").status == "finished"
    expected, log = _leaves(tmp_path / "whole")
    found, other = _leaves(tmp_path / "broken")
    assert found.keys() == expected.keys()
    for name, leaf in expected.items():
        np.testing.assert_array_equal(found[name], leaf, err_msg=name)
    assert other == log
