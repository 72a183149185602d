"""A loss that is no number is caught at its step, whatever the policy; and what went before it is not lost."""

import json

import jax
import numpy as np
import pytest

from jaxft.cli.config import read_config
from jaxft.cli.main import USAGE, main
from jaxft.data.order import Order, batch_examples
from jaxft.run import train
from jaxft.workdir import load_run

pytestmark = pytest.mark.usefixtures("one_device", "quick_compiles")

EXAMPLE = 5
#: One epoch has three steps of 8 examples: the example comes up in one of them, and three times in all.
SETTINGS = (
    "--config.loss.name=nan_loss:loss",
    "--config.input.batch_size=8",
    "--config.train.accum_steps=1",
    "--config.phases.phase1.length=9 steps",
    "--config.phases.phase2.length=0 steps",
    "--config.train.log_every=1 steps",
    "--config.train.eval_every=9 steps",
    "--config.train.checkpoint_every=1 steps",
)
BAD = [step for step in range(1, 10) if EXAMPLE in batch_examples(Order(0, 24), step - 1, 8)]


@pytest.fixture(autouse=True)
def own_losses(monkeypatch, request):
    monkeypatch.syspath_prepend(str(request.path.parent))


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_the_run_ends_at_the_step_and_names_the_examples_and_the_leaf(recipe, tmp_path, capsys):
    assert BAD[0] > 1
    workdir = tmp_path / "run"
    assert main(["train", f"--config={recipe}", f"--workdir={workdir}", *SETTINGS]) == USAGE
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"step {BAD[0]} is not finite: the loss, and 2 of 2 gradients; its batch held the examples " in error
    named = error.split("held the examples ")[1].split(".")[0].split(", ")
    assert sorted(map(int, named)) == sorted(batch_examples(Order(0, 24), BAD[0] - 1, 8))
    assert f"The newest checkpoint is step {BAD[0] - 1}" in error
    assert [line["step"] for line in lines(workdir)] == list(range(1, BAD[0]))
    for leaf in jax.tree.leaves(load_run(workdir).params):
        assert np.isfinite(leaf).all()


def test_skipped_steps_change_nothing_but_the_clock(recipe, tmp_path, capsys):
    workdir = tmp_path / "run"
    config = read_config(str(recipe), [*SETTINGS, "--config.train.nonfinite=skip"])
    assert train(config, workdir).status == "finished"
    said = capsys.readouterr().out
    for step in BAD:
        assert f"step {step} is not finite" in said
    assert said.count("it is skipped") == len(BAD)
    found = {line["step"]: line for line in lines(workdir) if line["split"] == "train"}
    assert sorted(found) == [step for step in range(1, 10) if step not in BAD]
    assert all(np.isfinite(line["loss"]) for line in found.values())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(load_run(workdir).params))


def test_rolled_back_the_run_passes_over_the_step_and_a_killed_one_would_do_the_same(recipe, tmp_path, capsys):
    workdir = tmp_path / "run"
    config = read_config(
        str(recipe), [*SETTINGS, "--config.train.nonfinite=rollback", "--config.train.checkpoint_every=2 steps"]
    )
    assert train(config, workdir).status == "finished"
    said = capsys.readouterr().out
    assert said.count("going back to the newest checkpoint, and on after that step") == len(BAD)
    found = [line["step"] for line in lines(workdir) if line["split"] == "train"]
    assert sorted(found) == found
    assert not set(BAD) & set(found)
    assert all(np.isfinite(line["loss"]) for line in lines(workdir))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(load_run(workdir).params))
    assert load_run(workdir).step == 9
