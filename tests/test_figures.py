"""Training figures reach the log late, and are those of exactly the steps of their window; a bad step is found where it is."""

import json

import jax
import numpy as np
import pytest

from jaxft.compiling import Compiles
from jaxft.errors import JaxftError
from jaxft.figures import AHEAD, MOST_SKIPPED, Figures
from jaxft.log import RunLog
from jaxft.metrics import classification_metrics, merge, to_floats, training_metrics
from jaxft.progress import Progress, Stopwatch

KIND = training_metrics(classification_metrics(3))
STEPS = 2 * AHEAD + 3
LEAVES = ["head/bias", "head/kernel", "stem/kernel"]


@jax.jit
def _metrics(loss, mask, norm, finite):
    return KIND.single_from_model_output(loss=loss, correct=loss > 1, mask=mask, grad_norm=norm, finite=finite)


def _made(number, bad=()):
    """The metrics of a step; `bad`: 0 is its loss, 1 + i the gradient of leaf i."""
    rng = np.random.default_rng(number)
    loss = rng.normal(size=6).astype(np.float32) ** 2
    if 0 in bad:
        loss[2] = np.nan
    finite = ~np.isin(np.arange(1 + len(LEAVES)), bad)
    return _metrics(loss, rng.uniform(size=6).astype(np.float32), np.float32(rng.uniform()), finite)


@pytest.fixture
def workdir(tmp_path):
    return tmp_path


@pytest.fixture
def make(workdir):
    """Makes figures with a policy; steps' batches are of six examples."""
    log = RunLog(workdir, tensorboard=False)
    watch, compiles = Stopwatch(6), Compiles()

    def make(nonfinite="stop", size=6):
        figures = Figures(
            log, Progress(99), watch, compiles, nonfinite=nonfinite, newest=lambda: 40,
            examples=lambda step: np.arange(step * size, (step + 1) * size),
        )  # fmt: skip
        figures.begin(LEAVES, [])
        return figures

    yield make
    for part in (log, watch, compiles):
        part.close()


@pytest.fixture
def figures(make):
    return make()


def _lines(workdir, name="metrics"):
    return [json.loads(line) for line in (workdir / f"{name}.jsonl").read_text().splitlines()]


def test_a_line_has_the_figures_of_its_steps_bit_for_bit_and_comes_when_it_is_settled(figures, workdir):
    made = [_made(number) for number in range(STEPS)]
    for step, metrics in enumerate(made, 1):
        figures.add(step, metrics)
        assert len(figures.collected) <= AHEAD + 1
    figures.end_window(STEPS, "phase1", jax.numpy.float32(0.5))
    assert _lines(workdir) == []
    figures.settle()
    expected = {"step": STEPS, "split": "train", **to_floats(merge(jax.device_get(made))), "lr": 0.5}
    assert expected.keys() == {"step", "split", "loss", "accuracy", "grad_norm", "lr"}
    assert _lines(workdir) == [expected]
    (timing,) = _lines(workdir, "timing")
    assert timing.keys() == {"step", "images_per_second", "seconds_per_step", "wait_share", "compiles", "compile_seconds"}
    figures.settle()
    assert len(_lines(workdir)) == 1


def test_a_step_after_the_window_belongs_to_the_next(figures, workdir):
    made = [_made(number) for number in range(3)]
    figures.add(1, made[0])
    figures.end_window(1, "phase1", 0.1)
    figures.add(2, made[1])
    figures.settle()
    figures.add(3, made[2])
    figures.end_window(3, "phase1", 0.1)
    figures.settle()
    assert [line["loss"] for line in _lines(workdir)] == [
        to_floats(made[0])["loss"],
        to_floats(merge(jax.device_get(made[1:])))["loss"],
    ]


def test_figures_out_of_a_checkpoint_come_before_the_steps_after_it(make, workdir):
    made = [_made(number) for number in range(4)]
    figures = make()
    figures.begin(LEAVES, [merge(jax.device_get(made[:2]))])
    for step, metrics in enumerate(made[2:], 3):
        figures.add(step, metrics)
    figures.end_window(4, "phase1", 0.1)
    figures.settle()
    (line,) = _lines(workdir)
    assert line == {"step": 4, "split": "train", **to_floats(merge(jax.device_get(made))), "lr": 0.1}


def test_the_youngest_steps_stay_on_the_device(figures):
    for number in range(STEPS):
        figures.add(number + 1, _made(number))
    first, *rest = (jax.tree.leaves(metrics)[0] for metrics in figures.collected)
    assert len(rest) == AHEAD
    assert not isinstance(first, jax.Array)
    assert all(isinstance(leaf, jax.Array) for leaf in rest)


def _feed(figures, bad, steps, *, first=1, skipped=False):
    """Adds steps until one raises; `bad`: step -> what is bad in it. Returns the last step that was added.

    With `skipped` a bad step has no figures, as the training step gives them where it skips.
    """
    for step in range(first, first + steps):
        made = _made(step, bad.get(step, ()))
        if skipped and step in bad:
            made = jax.tree.map(np.zeros_like, made).replace(nonfinite=made.nonfinite)
        figures.add(step, made)
    return first + steps - 1


@pytest.mark.parametrize(
    ("bad", "found"),
    [
        ((0,), "the loss"),
        ((0, 1, 3), "the loss, and 2 of 3 gradients"),
        ((0, 1, 2, 3), "the loss, and 3 of 3 gradients"),
        ((1,), "the gradient of head/bias"),
        ((2,), "the gradient of head/kernel"),
        ((2, 3), "the gradient of head/kernel, and 1 of 3 gradients"),
        ((3,), "the gradient of stem/kernel"),
    ],
)
def test_a_step_that_is_not_finite_ends_the_run_with_its_number_what_was_bad_and_its_examples(figures, workdir, bad, found):
    figures.add(1, _made(1))
    figures.add(2, _made(2, bad))
    with pytest.raises(JaxftError) as raised:
        figures.look()
    assert str(raised.value) == (
        f"step 2 is not finite: {found}; its batch held the examples 12, 13, 14, 15, 16, 17. Look at them; lower the learning "
        "rate, set config.optim.clip_norm, or let such steps pass with config.train.nonfinite='skip' or 'rollback'. The newest "
        "checkpoint is step 40"
    )


def test_of_a_large_batch_sixteen_examples_are_named_and_the_rest_are_counted(make):
    for size, shown in ((16, " 31."), (17, " 32 and 1 more."), (500, " 515 and 484 more.")):
        figures = make(size=size)
        figures.add(1, _made(1, (0,)))
        with pytest.raises(JaxftError) as raised:
            figures.look()
        text = str(raised.value)
        assert f"the examples {size}, {size + 1}, {size + 2}," in text
        assert f",{shown} Look at them" in text


@pytest.mark.parametrize("at", [1, 2, AHEAD, AHEAD + 1, 3 * AHEAD])
def test_a_bad_step_is_found_at_most_so_many_steps_late_without_any_line_being_due(figures, at):
    _feed(figures, {at: (0,)}, at + AHEAD - 1)
    with pytest.raises(JaxftError, match=f"^step {at} is not finite: the loss; "):
        figures.add(at + AHEAD, _made(0))


@pytest.mark.parametrize("late", [0, 1, 5])
def test_no_line_of_a_bad_step_or_after_it_is_written(figures, workdir, late):
    _feed(figures, {}, 2)
    figures.end_window(2, "warm", 0.1)
    figures.add(3, _made(3, (1,)))
    figures.settle()  # the line of step 2 is older than the bad step
    assert [line["step"] for line in _lines(workdir)] == [2]
    last = _feed(figures, {}, late, first=4)
    figures.end_window(last, "warm", 0.1)
    with pytest.raises(JaxftError, match="^step 3 is not finite: the gradient of head/bias; "):
        figures.settle()
    figures.settle()  # whatever ends a run settles once more
    assert [line["step"] for line in _lines(workdir)] == [2]
    assert [line["step"] for line in _lines(workdir, "timing")] == [2]


def test_a_look_before_a_save_finds_a_bad_step_after_the_last_line(figures, workdir):
    _feed(figures, {}, 2)
    figures.end_window(2, "warm", 0.1)
    figures.settle()
    _feed(figures, {3: (3,)}, 2, first=3)
    with pytest.raises(JaxftError, match="^step 3 is not finite: the gradient of stem/kernel; "):
        figures.look()


def test_finite_steps_are_looked_at_in_silence(make, capsys):
    for policy in ("stop", "skip", "rollback"):
        figures = make(policy)
        _feed(figures, {}, STEPS)
        figures.look()
        figures.look()
        assert figures.bad is None
    assert capsys.readouterr().out == ""


def test_a_skipped_step_is_told_once_and_the_run_goes_on(make, workdir, capsys):
    figures = make("skip")
    _feed(figures, {2: (0, 1), 4: (2,)}, 5, skipped=True)
    figures.look()
    figures.end_window(5, "warm", 0.1)
    figures.settle()
    _feed(figures, {6: (0,)}, 1, first=6, skipped=True)
    figures.end_window(6, "warm", 0.1)  # nothing but a skipped step: no line
    figures.settle()
    assert capsys.readouterr().out.splitlines()[:2] == [
        "step 2 is not finite: the loss, and 1 of 3 gradients; its batch held the examples 12, 13, 14, 15, 16, 17; "
        "it is skipped",
        "step 4 is not finite: the gradient of head/kernel; its batch held the examples 24, 25, 26, 27, 28, 29; it is skipped",
    ]
    assert figures.bad is None
    assert [line["step"] for line in _lines(workdir)] == [5]


def test_too_many_skipped_steps_in_a_row_end_the_run(make, capsys):
    figures = make("skip")
    _feed(figures, dict.fromkeys(range(2, 99), (0,)), 1 + MOST_SKIPPED)
    figures.look()
    assert len(capsys.readouterr().out.splitlines()) == MOST_SKIPPED
    figures.add(2 + MOST_SKIPPED, _made(0, (0,)))
    message = rf"^step {2 + MOST_SKIPPED} is not finite: .*, the {MOST_SKIPPED + 1}th in a row\. Look at them"
    with pytest.raises(JaxftError, match=message):
        figures.look()
    assert capsys.readouterr().out == ""


def test_a_finite_step_between_skipped_ones_begins_the_count_anew(make, capsys):
    figures = make("skip")
    bad = {step: (0,) for step in range(1, 2 * MOST_SKIPPED + 2) if step != MOST_SKIPPED + 1}
    _feed(figures, bad, 2 * MOST_SKIPPED + 1)
    figures.look()
    assert len(capsys.readouterr().out.splitlines()) == 2 * MOST_SKIPPED
    assert figures.bad is None


def test_a_step_to_be_rolled_back_is_kept_and_nothing_after_it_is_told_or_written(make, workdir, capsys):
    figures = make("rollback")
    _feed(figures, {}, 2)
    figures.end_window(2, "warm", 0.1)
    figures.settle()
    _feed(figures, {3: (2, 3), 4: (0, 1, 2, 3)}, 3, first=3)
    assert figures.bad is None  # not looked at yet
    figures.end_window(5, "warm", 0.1)
    figures.settle()
    assert str(figures.bad) == (
        "step 3 is not finite: the gradient of head/kernel, and 1 of 3 gradients; its batch held the examples "
        "18, 19, 20, 21, 22, 23"
    )
    assert (figures.bad.step, figures.bad.examples) == (3, (18, 19, 20, 21, 22, 23))
    figures.look()
    figures.settle()
    assert [line["step"] for line in _lines(workdir)] == [2]
    assert "not finite" not in capsys.readouterr().out


@pytest.mark.parametrize("at", [1, AHEAD + 2])
def test_a_step_to_be_rolled_back_is_known_at_most_so_many_steps_late(make, at):
    figures = make("rollback")
    _feed(figures, {at: (1,)}, at + AHEAD - 1)
    assert figures.bad is None
    figures.add(at + AHEAD, _made(0))
    assert figures.bad.step == at


def test_after_a_rollback_the_steps_that_were_under_way_are_forgotten(make, workdir):
    figures = make("rollback")
    _feed(figures, {2: (0,), 3: (0,), 4: (0,)}, 4)
    figures.end_window(4, "warm", 0.1)
    figures.look()
    assert figures.bad.step == 2
    figures.begin(LEAVES, [])
    assert figures.bad is None
    made = [_made(number) for number in (3, 4)]
    for step, metrics in enumerate(made, 3):
        figures.add(step, metrics)
    figures.settle()  # the window of before is gone
    assert _lines(workdir) == []
    figures.end_window(4, "warm", 0.1)
    figures.settle()
    assert figures.bad is None
    assert _lines(workdir) == [{"step": 4, "split": "train", **to_floats(merge(jax.device_get(made))), "lr": 0.1}]


def test_leaves_of_the_phase_that_began_last_are_named(make):
    figures = make()
    figures.add(1, _made(1))
    figures.look()
    figures.begin(["stage1/bias", "stage2/kernel", "stage3/scale"], [])
    figures.add(2, _made(2, (2,)))
    with pytest.raises(JaxftError, match="the gradient of stage2/kernel; "):
        figures.look()


def test_advice_is_said_once_a_phase_and_only_where_there_is_any(figures, capsys):
    given = iter(["", "more threads", "more threads still"])
    asked = []
    figures.begin(LEAVES, [], lambda timing: asked.append(timing["wait_share"]) or next(given))
    for step in range(1, 5):
        figures.add(step, _made(step))
        figures.end_window(step, "phase1", jax.numpy.float32(0.5))
        figures.settle()
    assert len(asked) == 2
    said = capsys.readouterr().out
    assert said.count("more threads") == 1
    assert "still" not in said
    figures.begin(LEAVES, [], lambda timing: next(given))
    figures.add(5, _made(5))
    figures.end_window(5, "phase2", jax.numpy.float32(0.5))
    figures.settle()
    assert "more threads still" in capsys.readouterr().out
