"""Sweeps that really train: every trial is a run in a process of its own."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import jaxft
from jaxft.cli.config import read_config
from jaxft.cli.main import INTERRUPTED, USAGE, main
from jaxft.predict import evaluate_run
from jaxft.run import train
from jaxft.search.space import draw, parse_search, with_overrides

#: Of these rates trial 1's is too low and trial 2's the best.
SEARCH = ("config.phases.phase1.lr=log(1e-6, 1e-1)",)
ASHA = {"trials": 3, "method": "asha", "seed": 4, "reduction_factor": 2}
LOSS = ("--config.train.monitor=loss", "--config.train.mode=min", "--config.data.source=python:slow_photos:photos")
CHILD = {"JAX_NUM_CPU_DEVICES": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}

pytestmark = pytest.mark.usefixtures("one_device", "quick_compiles", "quick_trials")


@pytest.fixture(autouse=True, scope="module")
def quick_trials(photos):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**CHILD, "PHOTOS": str(photos)}.items():
            patch.setenv(name, value)
        patch.syspath_prepend(str(Path(__file__).parent))
        yield


@pytest.fixture(scope="module")
def unbroken(made_once, small):
    """A sweep that nothing disturbed."""

    def make(folder):
        jaxft.sweep(read_config(str(small), LOSS), folder / "sweep", SEARCH, **ASHA)

    return made_once("unbroken-sweep", make) / "sweep"


def _command(small, workdir):
    options = [f"--{key.replace('_', '-')}={value}" for key, value in ASHA.items()]
    return ["sweep", f"--config={small}", *LOSS, f"--workdir={workdir}", *(f"--search={one}" for one in SEARCH), *options]


def _judged(workdir, split="val"):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if line["split"] == split}


def test_a_trial_is_an_ordinary_run_whose_test_split_stays_closed_until_the_printed_command(unbroken, small, tmp_path, capsys):
    shutil.copytree(unbroken, tmp_path / "sweep")
    assert main(_command(small, tmp_path / "sweep")) == 0  # all is there: nothing is trained, the table is printed
    out = capsys.readouterr().out
    record = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert "pruned after" not in out
    best = record["trials"][record["best"]]
    workdir = tmp_path / "sweep" / best["workdir"]
    assert not any(_judged(folder, "test") for folder in (tmp_path / "sweep" / "trials").iterdir())
    assert evaluate_run(workdir).judged.figures["loss"] == pytest.approx(best["figure"], rel=1e-5)
    command = shlex.split(out.splitlines()[-1])
    assert command[:2] == ["jaxft", "train"]
    assert f"--workdir={workdir}" in command
    before = (workdir / "checkpoints" / "8" / "MANIFEST").read_bytes()
    assert main(command[1:]) == 0
    assert "trained" not in capsys.readouterr().out
    assert list(_judged(workdir, "test")) == [8]
    assert (workdir / "checkpoints" / "8" / "MANIFEST").read_bytes() == before


def test_the_figure_is_the_best_checkpoints_and_the_order_is_by_it(unbroken):
    record = json.loads((unbroken / "sweep.json").read_text())
    finished = [trial for trial in record["trials"] if trial["state"] == "finished"]
    assert len(finished) == 2
    for trial in finished:
        judged = _judged(unbroken / trial["workdir"])
        assert trial["figure"] == pytest.approx(min(judged.values()), rel=1e-5)
        assert judged[trial["best_step"]] == min(judged.values())
        assert trial["evaluations"] == 4
    assert record["best"] == min(finished, key=lambda trial: trial["figure"])["number"]
    assert "split by us: 21 train, 6 val, 3 test" in (unbroken / "logs" / "000.txt").read_text()


def test_pruning_is_successive_halving_written_out(unbroken):
    """Li et al., 2020, with eta 2, as each trial arrives: at evaluations 1, 2, 4 it goes on if it is in the better half."""
    record = json.loads((unbroken / "sweep.json").read_text())
    rungs = {1: [], 2: [], 4: []}
    for trial in record["trials"]:
        judged = list(_judged(unbroken / trial["workdir"]).values())[: trial["evaluations"]]
        expected = "finished"
        for number, value in enumerate(judged, start=1):
            if number in rungs:
                rungs[number].append(value)
                best = sorted(rungs[number])[: max(1, len(rungs[number]) // 2)]
                if value not in best and number < 4:
                    expected = "pruned"
                    assert trial["evaluations"] == number
        assert trial["state"] == expected
    assert [trial["state"] for trial in record["trials"]] == ["finished", "pruned", "finished"]


def test_a_pruned_trial_is_saved_and_can_be_gone_on_with(unbroken, small, tmp_path):
    shutil.copytree(unbroken / "trials" / "001", tmp_path / "run")
    assert [folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir()] == ["2"]
    config = read_config(str(small), LOSS)
    values = draw(parse_search(SEARCH, config), ASHA["seed"], 1)
    result = train(with_overrides(config, values), tmp_path / "run")
    assert (result.status, result.step, result.split) == ("finished", 8, "test")


def _start(small, workdir):
    variables = {**os.environ, "SLOW_PHOTOS": "0.05", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "jaxft", *_command(small, workdir)]
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _wait_for(process, condition):
    while not condition():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)


def test_a_sweep_that_is_stopped_and_killed_goes_on_to_the_same_end(unbroken, small, tmp_path, capsys):
    workdir = tmp_path / "sweep"
    first = _start(small, workdir)
    _wait_for(first, (workdir / "trials" / "000" / "checkpoints" / "2").exists)
    first.send_signal(signal.SIGTERM)
    output, _ = first.communicate()
    assert first.returncode == INTERRUPTED, output
    assert "trial 000 stopped; everything is saved" in output
    assert "stopped; everything is saved: the same command goes on from there" in output
    assert json.loads((workdir / "sweep.json").read_text())["trials"][0]["state"] == "unfinished"

    second = _start(small, workdir)
    _wait_for(second, (workdir / "trials" / "002" / "checkpoints" / "2").exists)
    assert main(_command(small, workdir)) == USAGE
    assert f"another sweep is going on in {workdir}: wait for its end, or give another --workdir" in capsys.readouterr().err
    second.kill()
    second.communicate()

    assert main(_command(small, workdir)) == 0
    assert (workdir / "logs" / "000.txt").read_text().count("resuming at step") == 1
    assert (workdir / "logs" / "001.txt").read_text().count("phase1: steps 0 to 8") == 1  # finished trials are not repeated
    assert "resuming at step" in (workdir / "logs" / "002.txt").read_text()
    assert (workdir / "sweep.json").read_bytes() == (unbroken / "sweep.json").read_bytes()
    for number in range(3):
        name = Path("trials") / f"{number:03d}" / "metrics.jsonl"
        assert list(dict.fromkeys((workdir / name).read_text().splitlines())) == (unbroken / name).read_text().splitlines()


def test_jobs_share_the_trials_and_one_that_fails_is_told_beside_the_others(small, tmp_path, capsys):
    config = read_config(str(small), ["--config.phases.phase1.length=2 steps"])
    search = {"config.optim.name": "choice(sgd, adamm)", "config.seed": "int(0, 1000)"}
    found = jaxft.sweep(config, tmp_path / "sweep", search, trials=3, jobs=2, seed=8)
    assert [trial.overrides["config.optim.name"] for trial in found.trials] == ["adamm", "sgd", "sgd"]
    assert [trial.state for trial in found.trials] == ["failed", "finished", "finished"]
    said = capsys.readouterr().out.splitlines()
    assert [line[:9] for line in said[:2]] == ["trial 000", "trial 001"]  # both had begun before one was over
    assert "no optimizer is called 'adamm' (did you mean 'adam'" in found.trials[0].error
    assert str(found).splitlines()[-1] == f"000 failed: {found.trials[0].error}"
    assert found.best.number == max(found.trials[1:], key=lambda trial: (trial.figure, -trial.number)).number
    assert [trial.number for trial in found.sorted][-1] == 0
    with pytest.raises(jaxft.JaxftError) as raised:
        jaxft.sweep(config, tmp_path / "sweep", search, trials=3, seed=9)
    assert "holds another sweep: seed was 8, is 9; give another --workdir" in str(raised.value)
    config.optim.momentum = 0.5
    with pytest.raises(jaxft.JaxftError, match="holds another sweep: config.optim.momentum was None, is 0.5"):
        jaxft.sweep(config, tmp_path / "sweep", search, trials=3, seed=8)


def test_a_sweep_of_nothing_but_failures_ends_with_their_reason(small, tmp_path):
    config = read_config(str(small), ["--config.loss.name=nowhere:loss"])
    with pytest.raises(jaxft.JaxftError) as raised:
        jaxft.sweep(config, tmp_path / "sweep", SEARCH, trials=1)
    assert "the first 1 trials failed before they were judged, the last of them: the loss 'nowhere:loss'" in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--search=config.optim.lr=log(1e-5, 1e-2)", "--method=ahsa"],
            "no method of a sweep is called 'ahsa' (did you",
        ),
        (["--search=config.optim.lr=log(1e-5, 1e-2)", "--trials=0"], "trials is 0: it must be at least 1"),
        (["--search=config.optim.lr=log(1e-5, 1e-2)", "--reduction-factor=1"], "reduction_factor is 1: it must be at least 2"),
        (["--search=config.optim.lrr=log(1e-5, 1e-2)"], "config.optim has no key 'lrr' (did you mean 'lr'"),
        (["--search=config.optim.lr=log(1e-5, 1e-2)", "--config.optim.lrr=1"], "config.optim has no key 'lrr'"),
        ([], "the following arguments are required: --search"),
    ],
)
def test_what_does_not_fit_is_said_and_nothing_is_written(small, tmp_path, capsys, arguments, message):
    assert main(["sweep", f"--config={small}", f"--workdir={tmp_path / 'sweep'}", *arguments]) == USAGE
    assert message in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


def test_without_optuna_the_extra_is_named(small, tmp_path):
    code = "import sys; sys.modules['optuna'] = None; from jaxft.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *_command(small, tmp_path / "sweep")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == USAGE
    assert done.stderr.strip() == "jaxft: a sweep needs the package optuna: pip install 'jaxft[sweep]'"
    assert not (tmp_path / "sweep").exists()
