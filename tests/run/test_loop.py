"""The loop wastes nothing: one compilation a step, the state donated; a recompilation is told, and ends a strict run."""

import functools
import json
import warnings

import jax
import numpy as np
import pytest

from jaxft import inputs, run
from jaxft.cli.config import read_config
from jaxft.errors import JaxftError

pytestmark = pytest.mark.usefixtures("one_device", "quick_compiles")

SETTINGS = (
    "--config.phases.phase1.length=4 steps",
    "--config.phases.phase2.length=0 steps",
    "--config.train.eval_every=4 steps",
    "--config.train.log_every=1 steps",
)


@pytest.fixture
def changing_labels(monkeypatch):
    """Data whose labels are of another dtype from the third batch on."""
    plain = inputs.train_batches

    @functools.wraps(plain)
    def batches(source, preprocessing, *, start_step=0, **options):
        for step, batch in enumerate(plain(source, preprocessing, start_step=start_step, **options), start_step):
            yield batch if step < 2 else {**batch, "label": batch["label"].astype(np.uint8)}

    monkeypatch.setattr(inputs, "train_batches", batches)


@pytest.fixture
def states(monkeypatch):
    """The states that were given to the training step."""
    given = []

    def make(*arguments):
        step = jit_train_step(*arguments)

        def spied(state, batch):
            given.append(state)
            return step(state, batch)

        spied.lower = step.lower  # what looks at the step's memory compiles it by this
        return spied

    jit_train_step = run.jit_train_step
    monkeypatch.setattr(run, "jit_train_step", make)
    return given


def _lines(workdir, name):
    return [json.loads(line) for line in (workdir / f"{name}.jsonl").read_text().splitlines()]


def test_a_recompilation_is_told_and_ends_a_strict_run_with_all_saved(recipe, tmp_path, changing_labels, states, capsys):
    config, workdir = read_config(str(recipe), SETTINGS), tmp_path / "run"
    cause = "batch/label was int32[16], is uint8[16]"
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*donated buffers.*")
        with pytest.raises(JaxftError, match="step 3: the training step was compiled again in") as raised:
            run.train(config, workdir, strict=True)
    assert cause in str(raised.value)
    assert "step 3 is saved: start it again" in str(raised.value)
    assert len(states) == 3
    assert all(leaf.is_deleted() for state in states for leaf in jax.tree.leaves(state))
    assert [line["step"] for line in _lines(workdir, "metrics")] == [1, 2, 3]
    assert [line["compiles"] for line in _lines(workdir, "timing")] == [1, 1, 0]
    assert cause in capsys.readouterr().out
    assert [folder.name for folder in (workdir / "checkpoints").iterdir()] == ["3"]
