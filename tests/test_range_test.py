"""The range test: fastai's curve and rules, on the phase's own steps, with nothing changed by it."""

import itertools
import json

import jax
import numpy as np
import pytest
from PIL import Image

import jaxft
from jaxft import range_test
from jaxft.cli.config import read_config
from jaxft.cli.main import USAGE, main
from jaxft.config import to_json
from jaxft.errors import JaxftError
from jaxft.parallel import make_mesh
from jaxft.workdir import load_run

pytestmark = pytest.mark.usefixtures("quick_compiles")

SETTINGS = (
    "--config.optim.schedule=plateau",
    "--config.optim.schedule_options.patience=2",
    "--config.optim.warmup=1 steps",
    "--config.train.accum_steps=1",
    "--config.model.drop_path=0.0",
)


@pytest.fixture(scope="module", autouse=True)
def one_of_the_devices():
    plain = range_test.make_mesh
    range_test.make_mesh = lambda layout: make_mesh(layout, jax.devices()[:1])
    yield
    range_test.make_mesh = plain


@pytest.fixture(scope="module")
def found(recipe):
    """The range test of the head, the phases it was made with, and the config before and after."""
    config = read_config(str(recipe), SETTINGS)
    before, phases = to_json(config), []
    plain = range_test.jit_train_step
    range_test.jit_train_step = lambda plan, phase, *more: phases.append(phase) or plain(plan, phase, *more)
    try:
        curve = jaxft.lr_find(config, steps=60, min_lr=1e-6, max_lr=1e4)
    finally:
        range_test.jit_train_step = plain
    return curve, phases[0], before, to_json(config)


def test_the_suggestion_lies_between_rates_that_do_nothing_and_rates_that_diverge(found):
    curve, *_ = found
    assert curve.diverged
    assert len(curve.lrs) == len(curve.losses) == len(curve.smoothed) < 60
    learns = curve.lrs[np.flatnonzero(curve.smoothed < 0.95 * curve.smoothed[0])[0]]
    diverges = curve.lrs[-1]
    assert 1e-6 < learns < diverges < 1e4
    assert set(curve.suggestions) == {"valley", "steepest", "minimum"}
    for rule, lr in curve.suggestions.items():
        assert curve.lrs[0] * 10 < lr < diverges / 10, rule
    assert learns / 10 < curve.lr == curve.suggestions["valley"]
    assert (
        f"suggested by valley (half of the way down the longest fall of the loss): --config.phases.phase1.lr={curve.lr:.2g}"
        in (str(curve))
    )


def test_the_config_stays_as_it_was_and_each_step_has_its_rate_in_the_phases_own_optimizer(found):
    curve, phase, before, after = found
    assert after == before
    np.testing.assert_allclose([float(phase.schedule(step)) for step in range(len(curve.lrs))], curve.lrs, rtol=1e-4)
    assert (phase.name, curve.lrs[0]) == ("phase1", 1e-6)
    assert all(("fc" in path) for path in phase.trained)


def test_the_smoothed_curve_is_fastais_formula_and_ends_where_it_says(found):
    curve, *_ = found
    value, smoothed = 0.0, []
    for count, loss in enumerate(curve.losses, 1):
        value = loss + 0.98 * (value - loss)  # torch.lerp(loss, value, 0.98)
        smoothed.append(value / (1 - 0.98**count))
    np.testing.assert_allclose(curve.smoothed, smoothed, rtol=1e-12)
    above = [smoothed[end] > 4 * min(smoothed[: end + 1]) or not np.isfinite(smoothed[end]) for end in range(len(smoothed))]
    assert above == [False] * (len(smoothed) - 1) + [True]


def test_the_same_config_gives_the_same_curve_and_the_command_writes_it(found, recipe, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    curve, *_ = found
    command = ["lr-find", f"--config={recipe}", *SETTINGS, "--steps=60", "--min-lr=1e-6", "--max-lr=1e4", "--rule=steepest"]
    assert main([*command, "--out=curve.png", "--out=curve.json"]) == 0
    said = capsys.readouterr().out
    assert f"--config.phases.phase1.lr={curve.suggestions['steepest']:.2g}" in said
    kept = json.loads((tmp_path / "curve.json").read_text())
    assert (kept["rule"], kept["lr"], kept["diverged"]) == ("steepest", curve.suggestions["steepest"], True)
    finite = np.isfinite(curve.losses)
    np.testing.assert_array_equal(np.asarray(kept["losses"], float)[finite], curve.losses[finite])
    with Image.open(tmp_path / "curve.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    for ink in ((30, 90, 170), (190, 30, 40), (24, 112, 60), (150, 90, 0)):  # the smoothed curve, and three marks
        assert (pixels == ink).all(-1).sum() > 100, ink
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curve.json", "curve.png"]


def test_a_later_phase_can_begin_with_the_weights_of_a_run(recipe, finished):
    workdir, _ = finished
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    config = read_config(str(recipe), [*SETTINGS, "--config.input.augment="])
    options = {"phase": "phase1", "steps": 20, "min_lr": 1e-12, "max_lr": 1e-10}
    fresh, later = jaxft.lr_find(config, **options), jaxft.lr_find(config, **options, start=workdir)
    assert not later.diverged
    assert later.losses.mean() < fresh.losses.mean()  # it has learnt for two steps
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before
    other = read_config(str(recipe), [*SETTINGS, "--config.model.name=resnet18"])
    with pytest.raises(JaxftError, match="holds a resnet10t, not the resnet18 of the config: "):
        jaxft.lr_find(other, **options, start=workdir)
    assert load_run(workdir).model.name == "resnet10t"


def _longest_fall(losses):
    """The end and the length of the longest subsequence of falling losses, by trying all of them; of equals the first end."""
    best = (0, 1)
    for size in range(len(losses), 1, -1):
        chosen = [
            picked for picked in itertools.combinations(range(len(losses)), size) if (np.diff(losses[list(picked)]) < 0).all()
        ]
        if chosen:
            return min(picked[-1] for picked in chosen), size
    return best


@pytest.mark.parametrize("seed", range(6))
def test_the_rules_are_fastais(seed):
    rng = np.random.default_rng(seed)
    lrs, losses = np.geomspace(1e-6, 1, 12), rng.normal(size=12).cumsum()
    end, size = _longest_fall(losses)
    third = (size if end else 0) / 3  # fastai takes the length for the distance back from the end
    assert range_test.valley(lrs, losses) == lrs[max(end - (size if end else 0) + int(third) + int(third / 2), 0)]
    slopes = [(losses[i + 1] - losses[i]) / (np.log(lrs[i + 1]) - np.log(lrs[i])) for i in range(11)]
    assert range_test.steepest(lrs, losses) == lrs[slopes.index(min(slopes))]
    assert range_test.minimum(lrs, losses) == lrs[list(losses).index(min(losses))] / 10


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rule=vally"], "no rule is called 'vally' (did you mean 'valley'?); there are valley, steepest, minimum"),
        (["--steps=19"], "steps is 19: a curve needs at least 20"),
        (["--min-lr=1", "--max-lr=0.1"], "min_lr (1) must be positive and less than max_lr (0.1)"),
        (["--phase=phase3"], "config.phases has no 'phase3' (did you mean 'phase2' or 'phase1'?)"),
        (["--config.optim.name=schedule_free_adamw"], "the optimizer 'schedule_free_adamw' has a constant rate by its nature"),
        (["--out=curve.svg"], "--out is 'curve.svg': a .png for the curve, or a .json for the numbers"),
        (["--out=nowhere/curve.png"], "cannot write nowhere/curve.png: no folder"),
    ],
)
def test_what_does_not_fit_is_one_line(recipe, options, said, capsys):
    assert main(["lr-find", f"--config={recipe}", *options]) == USAGE
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error
