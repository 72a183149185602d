"""Training figures reach the log late, and are the figures of exactly the steps of their window."""

import json

import jax
import numpy as np
import pytest

from jaxft.compiling import Compiles
from jaxft.errors import JaxftError
from jaxft.figures import AHEAD, Figures
from jaxft.log import RunLog
from jaxft.metrics import classification_metrics, merge, to_floats, with_grad_norm
from jaxft.progress import Progress, Stopwatch

KIND = with_grad_norm(classification_metrics(3))
STEPS = 2 * AHEAD + 3


@jax.jit
def _metrics(loss, mask, norm):
    return KIND.single_from_model_output(loss=loss, correct=loss > 1, mask=mask, grad_norm=norm)


def _made(number):
    rng = np.random.default_rng(number)
    return _metrics(
        rng.normal(size=6).astype(np.float32) ** 2, rng.uniform(size=6).astype(np.float32), np.float32(rng.uniform())
    )


@pytest.fixture
def workdir(tmp_path):
    return tmp_path


@pytest.fixture
def figures(workdir):
    log = RunLog(workdir, tensorboard=False)
    watch, compiles = Stopwatch(6), Compiles()
    yield Figures(log, Progress(99, show=False), watch, compiles, lambda: 40)
    for part in (log, watch, compiles):
        part.close()


def _lines(workdir, name="metrics"):
    return [json.loads(line) for line in (workdir / f"{name}.jsonl").read_text().splitlines()]


def test_a_line_has_the_figures_of_its_steps_bit_for_bit_and_comes_when_it_is_settled(figures, workdir):
    made = [_made(number) for number in range(STEPS)]
    for metrics in made:
        figures.add(metrics)
        assert len(figures.collected) <= AHEAD + 1
    figures.end_window(STEPS, "phase1", jax.numpy.float32(0.5))
    assert _lines(workdir) == []
    figures.settle()
    expected = {"step": STEPS, "split": "train", **to_floats(merge(jax.device_get(made))), "lr": 0.5}
    assert _lines(workdir) == [expected]
    (timing,) = _lines(workdir, "timing")
    assert timing.keys() == {"step", "images_per_second", "seconds_per_step", "wait_share", "compiles", "compile_seconds"}
    figures.settle()
    assert len(_lines(workdir)) == 1


def test_a_step_after_the_window_belongs_to_the_next(figures, workdir):
    made = [_made(number) for number in range(3)]
    figures.add(made[0])
    figures.end_window(1, "phase1", 0.1)
    figures.add(made[1])
    figures.settle()
    figures.add(made[2])
    figures.end_window(3, "phase1", 0.1)
    figures.settle()
    assert [line["loss"] for line in _lines(workdir)] == [
        to_floats(made[0])["loss"],
        to_floats(merge(jax.device_get(made[1:])))["loss"],
    ]


def test_the_youngest_steps_stay_on_the_device(figures):
    for number in range(STEPS):
        figures.add(_made(number))
    first, *rest = (jax.tree.leaves(metrics)[0] for metrics in figures.collected)
    assert len(rest) == AHEAD
    assert not isinstance(first, jax.Array)
    assert all(isinstance(leaf, jax.Array) for leaf in rest)


def test_a_loss_that_is_no_number_is_logged_and_then_ends_the_run(figures, workdir):
    figures.add(_metrics(np.full(6, np.nan, np.float32), np.ones(6, np.float32), np.float32(1)))
    figures.end_window(41, "warm", 0.1)
    with pytest.raises(JaxftError, match=r"nan at step 41: lower config.phases.warm.lr .* checkpoint is step 40"):
        figures.settle()
    assert [line["step"] for line in _lines(workdir)] == [41]
    figures.settle()
