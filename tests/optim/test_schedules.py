"""Schedules against torch's schedulers (fixtures) and closed formulas; plateau against torch's; errors."""

import dataclasses
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxft.errors import JaxftError
from jaxft.optim.schedules import Plateau, PlateauState, make_plateau, make_schedule

FIXTURES = np.load(Path(__file__).parent / "fixtures" / "optim.npz")
STEPS = 30
LINEAR_CYCLE = {"anneal": "linear", "pct_start": 0.25, "div_factor": 10.0, "final_div_factor": 50.0}
# As in scripts/make_optim_fixtures.py.
PLATEAUS = {
    "max": Plateau("max", factor=0.5, patience=2),
    "min": Plateau("min", factor=0.5, patience=0, cooldown=2),
    "max_abs": Plateau("max", 0.02, factor=0.3, patience=1, threshold=0.05, threshold_mode="abs"),
    "min_abs": Plateau("min", factor=0.3, patience=1, threshold=0.05, threshold_mode="abs", cooldown=1),
    "max_rel": Plateau("max", 1e-9, factor=0.1, patience=1, threshold=0.1),
}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cosine", {"schedule": "cosine", "end_lr": 0.1}),
        ("linear", {"schedule": "linear", "end_lr": 0.1}),
        ("step", {"schedule": "step", "step_every": 7, "step_factor": 0.3}),
        ("polynomial", {"schedule": "polynomial", "options": {"power": 2.0}}),
        ("onecycle", {"schedule": "onecycle"}),
        ("onecycle_linear", {"schedule": "onecycle", "options": LINEAR_CYCLE}),
        ("onecycle_three", {"schedule": "onecycle", "options": {"three_phase": True, "pct_start": 0.4}}),
        ("onecycle_odd", {"schedule": "onecycle", "options": {"pct_start": 0.43, "anneal": "linear", "three_phase": True}}),
        ("constant_warm", {"schedule": "constant", "warmup_steps": 6}),
        ("cosine_warm", {"schedule": "cosine", "end_lr": 0.1, "warmup_steps": 6}),
        ("linear_warm", {"schedule": "linear", "end_lr": 0.1, "warmup_steps": 6}),
        ("step_warm", {"schedule": "step", "step_every": 7, "step_factor": 0.3, "warmup_steps": 6}),
    ],
)
def test_schedules_give_the_rates_of_torchs_schedulers(name, settings):
    rate = make_schedule(0.4, total_steps=STEPS, **settings)
    expected = FIXTURES[f"rate|{name}"]
    found = [float(rate(step)) for step in range(len(expected))]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(jax.jit(jax.vmap(rate))(jnp.arange(len(expected))), expected, rtol=1e-5, atol=1e-7)


def _formula(schedule, step, lr, warmup, total, end):
    if step < warmup:
        return lr * (step + 1) / warmup
    share = min((step - warmup) / (total - warmup), 1)
    return {
        "constant": lr,
        "cosine": end + (lr - end) * (1 + math.cos(math.pi * share)) / 2,
        "linear": lr + (end - lr) * share,
        "step": lr * 0.5 ** ((step - warmup) // 20),
    }[schedule]


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "step"])
@pytest.mark.parametrize("warmup", [0, 1, 2, 10])
def test_schedules_equal_their_formulas_at_their_corners_and_after_their_end(schedule, warmup):
    rate = make_schedule(
        3e-3, total_steps=100, schedule=schedule, warmup_steps=warmup, end_lr=1e-5, step_every=20, step_factor=0.5
    )
    for step in {0, 1, warmup - 1, warmup, warmup + 1, 19, 20, 29, 30, 50, 99, 100, 150} - {-1}:
        expected = _formula(schedule, step, 3e-3, warmup, 100, 1e-5)
        np.testing.assert_allclose(rate(step), expected, rtol=1e-6, atol=1e-9, err_msg=f"{step}")
        np.testing.assert_allclose(jax.jit(rate)(jnp.int32(step)), expected, rtol=1e-6, atol=1e-9, err_msg=f"{step}, jitted")


def test_a_warm_up_may_fill_the_whole_length_and_reaches_the_peak_at_its_last_step():
    rate = make_schedule(1.0, total_steps=4, warmup_steps=4)
    np.testing.assert_allclose([rate(step) for step in range(4)], [0.25, 0.5, 0.75, 1.0], rtol=1e-6)


def test_onecycle_stays_at_its_end():
    rate = make_schedule(0.4, total_steps=10, schedule="onecycle")
    assert float(rate(9)) == pytest.approx(0.4 / 25 / 1e4)
    assert float(rate(10)) == float(rate(1000)) == float(rate(9))


@pytest.mark.parametrize("total", [1, 2, 3])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_onecycle_of_few_steps_is_a_number_between_its_ends(total, share):
    rate = make_schedule(0.4, total_steps=total, schedule="onecycle", options={"pct_start": share})
    assert all(0 < float(rate(step)) <= 0.4 + 1e-6 for step in range(total + 1))


@pytest.mark.parametrize("name", PLATEAUS)
def test_plateau_lowers_the_rate_after_the_same_evaluations_as_torch(name):
    expected = FIXTURES[f"plateau|{name}"]
    assert len(set(expected)) > 2, "the figures would show nothing"
    state, found = PlateauState(0.4), []
    for value in FIXTURES["plateau_values"]:
        state = PLATEAUS[name](state, float(value))
        # What a checkpoint keeps is all of it.
        state = PlateauState(**json.loads(json.dumps(dataclasses.asdict(state))))
        found.append(state.lr)
    np.testing.assert_array_equal(found, expected)


def test_plateau_is_constant_after_its_warm_up_and_is_made_from_its_options():
    rate = make_schedule(0.5, total_steps=10, schedule="plateau", warmup_steps=2, options={"patience": 3})
    assert [float(rate(step)) for step in (0, 1, 2, 9)] == [0.25, 0.5, 0.5, 0.5]
    assert make_plateau("plateau", {"patience": 3}, mode="min", min_lr=0.1) == Plateau("min", 0.1, patience=3)
    assert make_plateau("cosine", {}, mode="min", min_lr=0.1) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "plateau", "options": {"patiance": 1}}, r"'plateau' has no option 'patiance' .did you mean 'patience'"),
        ({"schedule": "plateau", "options": {"mode": "max"}}, r"'plateau' has no option 'mode'"),
        ({"schedule": "cosine", "options": {"power": 2}}, r"'cosine' has no option 'power'; it takes none"),
        ({"schedule": "polynomial", "options": {"power": 0}}, r"power of schedule 'polynomial' is 0: it must be positive"),
        (
            {"schedule": "onecycle", "warmup_steps": 1},
            r"'onecycle' has a warm-up and an end of its own: set warmup to '0 steps'",
        ),
        ({"schedule": "onecycle", "end_lr": 0.01}, r"'onecycle' has a warm-up and an end of its own"),
        ({"schedule": "onecycle", "options": {"pct_start": 1.5}}, r"pct_start of schedule 'onecycle' is 1.5"),
        ({"schedule": "onecycle", "options": {"pct_start": 0.6, "three_phase": True}}, r"three phases need at most 0.5"),
        ({"schedule": "onecycle", "options": {"anneal": "cosine"}}, r"anneal of schedule 'onecycle' is 'cosine', not 'cos'"),
        ({"schedule": "onecycle", "options": {"div_factor": 0}}, r"div_factor .0. and final_div_factor .10000.0. .* positive"),
    ],
)
def test_options_that_do_not_fit_are_one_clear_error(settings, message):
    with pytest.raises(JaxftError, match=message) as caught:
        make_schedule(0.1, **{"total_steps": 10, **settings})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factor": 1.0}, r"factor of schedule 'plateau' is 1.0: it must lie between 0 and 1"),
        ({"patience": -1}, r"patience of schedule 'plateau' is -1: it must not be negative"),
        ({"threshold_mode": "relative"}, r"threshold_mode of schedule 'plateau' is 'relative', not 'rel' or 'abs'"),
    ],
)
def test_a_plateau_out_of_its_range_is_one_clear_error(options, message):
    with pytest.raises(JaxftError, match=message):
        make_plateau("plateau", options, mode="max", min_lr=0.0)
