"""The average of a config: which one, of whose steps, and what does not go together."""

import jax
import numpy as np
import pytest

from jaxft import states
from jaxft.cli.config import read_config
from jaxft.errors import JaxftError
from jaxft.parallel import make_mesh
from jaxft.plan import make_plan
from jaxft.train import ema, swa

# The recipe has phases of 2 and 4 steps, and batches of 16 of 24 examples: an epoch is 2 steps, rounded.


def _plan(recipe, *overrides):
    config = read_config(str(recipe), [f"--config.{override}" for override in overrides])
    return config, make_plan(config, weights=False)


def _weights(average, count=6):
    return [float(average(np.int32(steps))) for steps in range(1, count + 1)]


@pytest.fixture
def plain(recipe, tmp_path):
    """The recipe without averages."""
    file = tmp_path / "plain.py"
    file.write_text(recipe.read_text().replace("config.train.ema_decay = 0.9", ""))
    return file


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["train.ema_decay=0.5"], ema(0.5)),
        (["train.ema_decay=0.5", "train.ema_start=3 steps"], ema(0.5, start=3)),
        (
            [
                "train.ema_decay=0.9",
                "train.ema_warmup_power=0.75",
                "train.ema_warmup_gamma=2.0",
                "train.ema_min_decay=0.5",
                "train.ema_start=1 steps",
            ],
            ema(0.9, start=1, warmup_power=0.75, warmup_gamma=2.0, min_decay=0.5),
        ),
        (["train.swa_start=2 steps", "train.swa_every=2 steps"], swa(2, 2)),
        (["train.swa_start=1 epochs"], swa(2, 2)),
    ],
)
def test_the_keys_of_a_config_make_the_average_they_name(plain, overrides, expected):
    _, plan = _plan(plain, *overrides)
    assert _weights(plan.average) == _weights(expected)


def test_without_a_key_there_is_none(plain):
    config, plan = _plan(plain)
    assert plan.average is None
    assert states.abstract_state(plan, plan.phases[0], config).ema is None


def test_steps_count_from_the_first_of_each_phase(recipe, monkeypatch):
    given = []
    make = states.make_train_step
    monkeypatch.setattr(states, "make_train_step", lambda *some, **more: given.append(more["average"]) or make(*some, **more))
    config, plan = _plan(recipe, "train.ema_warmup_power=0.75")
    for phase in plan.phases:
        states.jit_train_step(plan, phase, config, make_mesh("", jax.devices()[:1]))
    for phase, average in zip(plan.phases, given, strict=True):
        assert [float(average(np.int32(phase.start + steps))) for steps in range(1, 5)] == _weights(plan.average, 4)
    assert [phase.start for phase in plan.phases] == [0, 2]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["train.ema_decay=1.5"], "config.train.ema_decay is 1.5: it must lie between 0 and 1"),
        (["train.ema_decay=0.9", "train.swa_start=2 steps"], "ask for two kinds of averages: set one of them"),
        (["train.ema_warmup_power=0.75"], "config.train.ema_warmup_power is 0.75, but config.train.ema_decay is not set"),
        (["train.ema_start=2 steps"], "config.train.ema_start is '2 steps', but config.train.ema_decay is not set"),
        (["train.ema_decay=0.9", "train.swa_every=2 steps"], "config.train.swa_every is '2 steps', but config.train.swa_start"),
        (["train.ema_decay=0.9", "train.ema_warmup_power=-1.0"], "config.train.ema_warmup_power is -1.0: it must be positive"),
        (["train.ema_decay=0.9", "train.ema_min_decay=0.95"], "config.train.ema_min_decay is 0.95: it must lie between 0 and"),
        (["train.swa_start=4 steps"], "config.train.swa_start is '4 steps', which is 4 steps, and no phase has more than 4"),
        (["train.swa_start=2"], "config.train.swa_start is '2': a duration is written '200 steps'"),
        (["train.swa_start=2 steps", "train.swa_every=0 steps"], "config.train.swa_every is 0: it must be at least one step"),
        (["train.sam_rho=0.0"], "config.train.sam_rho is 0.0: it must be positive, e.g. 0.05"),
        (["train.sam_adaptive=True"], "config.train.sam_adaptive needs config.train.sam_rho, e.g. 0.5"),
        (["train.monitor=loss"], "config.train.monitor is 'loss', of which less is better, and config.train.mode 'max'"),
        (["train.mode=min"], "config.train.monitor is 'accuracy', of which more is better, and config.train.mode 'min'"),
        (["loss.name=mean_teacher_loss:loss"], "config.loss takes `average`, and no averages are kept: set config.train"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_does_not_fit_is_a_clear_error(plain, overrides, said, tmp_path, monkeypatch):
    (tmp_path / "mean_teacher_loss.py").write_text("def loss(outputs, batch, *, forward, average): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(JaxftError) as raised:
        _plan(plain, *overrides)
    assert said in str(raised.value)
