"""Workers are real processes; those with made-up times make what `contest` finds exact."""

import os
import sys
from pathlib import Path

import alternate
import pytest
import results
from alternate import Entry, MissingWorkError, Worker, WorkerDiedError, WorkerError, contest, screen
from compare import request
from workloads import Workload


@pytest.fixture
def worker(made_up):
    with Worker("made-up", sys.executable, made_up) as started:
        yield started


@pytest.fixture
def entry(worker, tmp_path):
    def make(variant, *seconds, **more):
        return Entry(worker, variant, {"variant": variant, "seconds": seconds, "log": str(tmp_path / "log"), **more})

    return make


def _state(worker):
    return Path(f"/proc/{worker._process.pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")
def test_a_worker_that_is_not_asked_is_stopped(worker):
    for _ in range(2):
        assert worker.ask("about")["versions"]["made-up"] == "1"
        os.waitpid(worker._process.pid, os.WUNTRACED)  # until the signal has arrived
        assert _state(worker) == "T"


def test_leaving_ends_the_process(made_up):
    with Worker("made-up", sys.executable, made_up) as worker:
        worker.ask("about")
    assert worker._process.returncode == 0


def test_the_fastest_variants_of_a_side_go_on_and_the_best_median_wins(entry):
    # Screened: 1.0, 0.5 and 0.4 s a call. In the rounds, which come after one timing and three turns, "b" is faster than "c".
    slow, b, c = entry("a", 1.0), entry("b", *[0.5] * 4, 0.2, 0.2, 0.9), entry("c", 0.4)
    sides, ratios = contest({"ours": [entry("ours", 0.1)], "theirs": [slow, b, c]}, rounds=3, seconds=0.1)
    theirs = sides["theirs"]
    assert [runner.entry.variant for runner in theirs.runners] == ["b", "c"]
    assert theirs.screened == pytest.approx({"a": 10.0, "b": 20.0, "c": 25.0})
    assert ratios["theirs"] == pytest.approx([2.0, 2.0, 9.0])  # in the same round, not median over median


def test_every_second_round_goes_backwards(entry, tmp_path):
    sides = {"ours": [entry("x", 1.0)], "theirs": [entry("y", 1.0)]}
    contest(sides, rounds=4, seconds=1.0)
    assert (tmp_path / "log").read_text().split()[-8:] == list("xyyxxyyx")


def test_a_turn_has_as_many_calls_as_fit(entry):
    assert alternate.start(entry("x", 0.01), seconds=0.5).calls == 50
    assert alternate.start(entry("x", 3.0), seconds=0.5).calls == 1


def test_a_variant_that_fails_is_left_out_and_says_why(entry):
    side = screen([entry("failing", 1.0), entry("x", 1.0, flops=7.0)], keep=2, seconds=1.0)
    assert [runner.entry.variant for runner in side.runners] == ["x"]
    assert "this one cannot be compiled" in side.failed["failing"]
    assert side.flops == 7.0


def test_a_side_of_which_every_variant_fails_is_an_error_with_its_words(entry):
    with pytest.raises(WorkerError, match="this one cannot be compiled"):
        screen([entry("failing", 1.0)], keep=2, seconds=1.0)


def test_what_a_library_does_not_have_is_told_apart(entry):
    with pytest.raises(MissingWorkError, match="made-up: there is no such variant"):
        screen([entry("missing", 1.0)], keep=2, seconds=1.0)


def test_a_worker_that_dies_is_an_error_with_its_code_and_its_last_words(entry):
    with pytest.raises(WorkerDiedError, match=r"(?s)made-up worker ended with code 3.*out of luck"):
        screen([entry("x", 1.0), entry("dying", 1.0)], keep=2, seconds=1.0)


def test_an_interpreter_that_is_not_there_is_one_clear_error():
    with pytest.raises(WorkerError, match=r"the torch worker cannot start: /nowhere/python: No such file"):
        Worker("torch", "/nowhere/python", "torch_worker.py")


def test_more_threads_than_cores_are_refused():
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system cannot bind processes to cores")
    with pytest.raises(WorkerError, match="--threads=1000 needs as many cores"):
        alternate.use_cores(1000)


def test_the_spread_is_median_and_quartiles():
    assert alternate.spread([5.0, 1.0, 3.0, 2.0, 4.0]) == {"median": 3.0, "q1": 2.0, "q3": 4.0}
    assert alternate.spread([1.0, 2.0]) == {"median": 1.5, "q1": 1.25, "q3": 1.75}


@pytest.mark.slow
def test_jaxft_and_plain_flax_are_timed_on_the_same_work(monkeypatch):
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # the workers compile for long, and what they run is short
    workload = Workload("resnet50", 32, 1, classes=10)
    scripts = {"jaxft": "jaxft_worker.py", "flax": "flax_worker.py"}
    with alternate.workers({side: (sys.executable, script) for side, script in scripts.items()}) as started:
        entries = {
            side: [Entry(worker, "default", request(workload, "eval", "default", 1))] for side, worker in started.items()
        }
        sides, ratios = contest(entries, rounds=2, seconds=0.01)
        about = results.describe(started)
    row = results.row(workload, "eval", sides, ratios, about, **results.conditions(1))
    assert row["flops_per_image"] > 1e8  # a 224th of a 224-pixel image's 8 GFLOP and more: small maps lose to padding
    assert len(row["ratio"]["flax"]["rounds"]) == 2
    for side in ("jaxft", "flax"):
        assert 0 < row["sides"][side]["share_of_peak"] < 1
        assert "jax" in row["sides"][side]["versions"]


@pytest.mark.parametrize(
    ("variable", "script", "part", "variant"),
    [
        ("JAXFT_TORCH_PYTHON", "torch_worker.py", "train", "eager"),
        ("JAXFT_TORCH_PYTHON", "torch_worker.py", "head", "eager+channels_last+no_grad"),
        ("JAXFT_TORCH_PYTHON", "torch_worker.py", "eval", "eager+channels_last"),
        ("JAXFT_KERAS_PYTHON", "keras_worker.py", "train", "default"),
        ("JAXFT_KERAS_PYTHON", "keras_worker.py", "head", "default"),
        ("JAXFT_KERAS_PYTHON", "keras_worker.py", "eval", "default"),
    ],
)
def test_the_workers_of_other_environments_answer(variable, script, part, variant):
    if variable not in os.environ:
        pytest.skip(f"{variable} names no Python")
    with Worker("theirs", os.environ[variable], script) as worker:
        entry = Entry(worker, variant, request(Workload("resnet50", 32, 2, 10), part, variant, 1))
        assert alternate.start(entry, 0.01).turn() > 0
