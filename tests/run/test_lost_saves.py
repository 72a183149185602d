"""A save that fails does not end a run, and what was lost is not called the best by any record."""

import errno

import pytest

from jaxft import checkpoint, run
from jaxft.cli.config import read_config
from jaxft.errors import SaveError

pytestmark = pytest.mark.usefixtures("one_device", "quick_compiles")

SETTINGS = (
    "--config.phases.phase1.length=6 steps",
    "--config.phases.phase2.length=0 steps",
    "--config.train.eval_every=3 steps",
    "--config.train.checkpoint_every=1 steps",
    "--config.train.accum_steps=1",
)


@pytest.fixture
def failing_saves(monkeypatch):
    """Steps whose checkpoint a full disk does not take; each `save` that is asked for is kept: step -> best steps."""
    plain, save, lost, asked = checkpoint.write_manifest, checkpoint.Checkpoints.save, set(), {}

    def write_manifest(folder, **options):
        if int(folder.name.split(".")[0]) in lost:
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(folder, **options)

    def spied(checkpoints, state, meta, *, best_step):
        asked[int(state.step)] = (meta["standing"]["best_step"], best_step)
        save(checkpoints, state, meta, best_step=best_step)

    monkeypatch.setattr(checkpoint, "write_manifest", write_manifest)
    monkeypatch.setattr(checkpoint.Checkpoints, "save", spied)
    monkeypatch.setattr(run, "finish", lambda *arguments: "the end")
    return lost, asked


def _records(workdir):
    reader = checkpoint.Checkpoints(workdir / "checkpoints", read_only=True)
    found = {step: reader.meta(step)["standing"] for step in reader.steps()}
    reader.close()
    return found


def _warning(workdir, step, kept):
    have = f"the newest is step {kept}" if kept else "there is none yet"
    return (
        f"WARNING: the disk of {workdir / 'checkpoints'} is full (No space left on device): checkpoint {step} was not saved; "
        f"make room. Training goes on without that checkpoint; {have}"
    )


def test_a_lost_checkpoint_is_never_called_the_best_and_the_best_before_it_stays(recipe, tmp_path, failing_saves, capsys):
    # Every evaluation is a gain: step 4, whose save fails, is the best when step 5 is made.
    lost, asked = failing_saves
    lost |= {1, 4}
    config = read_config(str(recipe), [*SETTINGS, "--config.train.eval_every=2 steps", "--config.train.min_delta=-1.0"])
    assert run.train(config, tmp_path / "run") == "the end"
    assert asked == {1: (None, None), 2: (2, 2), 3: (2, 2), 4: (4, 4), 5: (2, 2), 6: (6, 6)}
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("WARNING: ")]
    assert warnings == [_warning(tmp_path / "run", 1, None), _warning(tmp_path / "run", 4, 3)]
    records = _records(tmp_path / "run")
    assert records.keys() == {6}
    assert records[6]["best_step"] == 6
    assert [step for step, _ in records[6]["earlier"]] == [2]


def test_only_when_the_last_save_fails_the_run_ends_with_an_error_and_goes_on_from_what_was_kept(
    recipe, tmp_path, failing_saves, capsys
):
    lost, asked = failing_saves
    lost.add(6)
    config, workdir = read_config(str(recipe), SETTINGS), tmp_path / "run"
    with pytest.raises(SaveError) as raised:
        run.train(config, workdir)
    assert str(raised.value) == f"the end of the run in {workdir} is not saved; its newest checkpoint is step 5"
    assert _warning(workdir, 6, 5) in capsys.readouterr().out.splitlines()
    records = _records(workdir)
    assert records.keys() == {3, 5}  # the best and the newest
    assert records[5]["best_step"] == 3
    lost.clear()
    asked.clear()
    assert run.train(config, workdir) == "the end"
    assert asked.keys() == {6}
    assert "resuming at step 5" in capsys.readouterr().out
    assert max(_records(workdir)) == 6
