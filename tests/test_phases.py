"""From the sections of a config to phases: rates, moments that go on, what does not fit. Shapes only, nothing is compiled."""

import pytest
from ml_collections import ConfigDict

from jaxft import tree
from jaxft.adapters import with_adapter
from jaxft.config import Clock, default_config, gradual, phase
from jaxft.errors import JaxftError
from jaxft.models import build
from jaxft.optim.schedules import Plateau
from jaxft.phases import make_phases
from jaxft.tuning.layerwise import layers

MODEL = build("resnet18", num_classes=3)


def _phases(phases, family="resnet", pretrained="imagenet", ema=None, swa=None, model=MODEL, **optim):
    config = default_config()
    config.train.swa_start = swa
    config.model.pretrained = pretrained
    config.train.ema_decay = ema
    config.phases = ConfigDict(phases)
    for key, value in optim.items():
        config.optim[key] = value
    return make_phases(config, Clock(100, 10), model.shapes[0], model.stages, family=family)


def _since(made, part):
    """The phase in which the moments of the leaves of a part began."""
    (found,) = {label for path, label in made.generations.items() if path.startswith(part)}
    return found


THREE = {"a": phase(train="head"), "b": phase(train="from:stage4"), "c": phase(train="from:stage3")}


def test_moments_of_a_leaf_began_in_the_phase_that_first_trained_it():
    first, second, third = _phases(THREE)
    assert (_since(first, "fc"), first.notes) == ("a", ())
    assert (_since(second, "fc"), _since(second, "layer4")) == ("a", "b")
    assert [_since(third, part) for part in ("fc", "layer4", "layer3")] == ["a", "b", "c"]
    assert second.notes == ("moments of the optimizer go on for 2 of 17 arrays, the others begin",)


def test_a_leaf_that_paused_begins_anew():
    phases = {"a": phase(train="head"), "b": phase(train="stage4"), "c": phase(train="from:stage4")}
    _, second, third = _phases(phases)
    assert second.notes == ("the optimizer begins anew: nothing of the phase before trains on",)
    assert (_since(third, "fc"), _since(third, "layer4")) == ("c", "b")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "sgd"}, "the optimizer begins anew: its settings are others"),
        ({"b1": 0.8}, "the optimizer begins anew: its settings are others"),
        ({"name": "optax:lion", "lr": 0.1}, "the optimizer begins anew: the moments of 'optax:lion' are not kept"),
        ({"name": "schedule_free_sgd", "schedule": "constant"}, "the moments of 'schedule_free_sgd' are not kept"),
    ],
)
def test_under_another_optimizer_all_moments_begin_anew_with_a_line(change, says):
    _, second = _phases({"a": phase(train="head"), "b": phase(train="full", **change)})
    assert {*second.generations.values()} == {"b"}
    assert says in second.notes[0]


def test_rate_schedule_decay_and_clipping_may_change_and_it_can_be_turned_off():
    change = {"lr": 1e-5, "schedule": "constant", "weight_decay": 0.1, "clip_norm": 1.0, "layer_decay": 0.5}
    _, second = _phases({"a": phase(train="head"), "b": phase(train="full", **change)})
    assert _since(second, "fc") == "a"
    _, second = _phases({"a": phase(train="head"), "b": phase(train="full")}, keep_moments=False)
    assert (_since(second, "fc"), second.keeps, second.notes) == ("b", False, ())


def test_without_a_rate_it_is_the_usual_one_of_optimizer_family_and_what_trains():
    first, second, third = _phases({**THREE, "c": phase(train="full", name="sgd", lr=0.5)})
    assert (first.lr, first.lr_source) == (1e-3, "the usual one of adamw, resnet, nothing that is pretrained")
    assert (second.lr, second.lr_source) == (1e-4, "the usual one of adamw, resnet, fine-tuning")
    assert (third.lr, third.lr_source) == (0.5, "")
    assert float(first.schedule(0)) == pytest.approx(1e-3)
    (scratch,) = _phases({"a": phase(train="full")}, pretrained="")
    assert (scratch.lr, scratch.lr_source) == (1e-3, "the usual one of adamw, resnet, random weights")
    (given,) = _phases({"a": phase(train="full")}, lr=0.3)
    assert (given.lr, given.lr_source) == (0.3, "")


def test_plateau_looks_at_the_runs_figure_and_stops_at_end_lr():
    (made,) = _phases({"a": phase()}, schedule="plateau", end_lr=1e-6, schedule_options=ConfigDict({"patience": 1}))
    assert made.plateau == Plateau("max", 1e-6, patience=1)


def test_layer_decay_and_rates_by_stage_become_groups_of_a_phase_alone():
    first, second = _phases({"a": phase(train="head"), "b": phase(train="full", layer_decay=0.5, stage_lr="stem:0")})
    assert first.groups is None
    scales = {group.name: group.lr_scale for group in second.groups}
    assert (scales["head"], scales["layer4/1"], scales["layer1/0"], scales["stem"]) == (1, 0.5, 0.5**8, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "schedule_free_sgd"}, r"'schedule_free_sgd' needs no schedule: set schedule to 'constant', not 'cosine'"),
        (
            {"name": "schedule_free_sgd", "schedule": "constant", "ema": 0.9},
            r"config.phases.a: the optimizer 'schedule_free_sgd' averages by itself: set config.train.ema_decay to None",
        ),
        ({"l2_sp": 0.1, "pretrained": ""}, r"config.phases.a: l2_sp pulls to pretrained values"),
        ({"l2_sp": 0.1, "weight_decay": 0.1}, r"l2_sp .0.1. takes the place of weight_decay .0.1.: set weight_decay to 0"),
        ({"l2_sp": -0.1}, r"l2_sp .-0.1. and l2_sp_head .0.01. must not be negative"),
        ({"name": "lars", "lr": 1.0, "l2_sp": 0.1}, r"optimizer 'lars' has its own weight decay: set l2_sp to None"),
        ({"name": "lars"}, r"optimizer 'lars' has no usual learning rate: set lr"),
        ({"name": "adamm"}, r"no optimizer is called 'adamm' .did you mean 'adam'"),
        ({"name": "adam", "momentum": 0.9}, r"optimizer 'adam' has no momentum; it has b1, b2, eps"),
        ({"name": "optax:sgd", "lr": 0.1, "momentum": 0.9}, r"momentum does not reach the optimizer 'optax:sgd'"),
        ({"stage_lr": "stagee4:0.1"}, r"'stagee4' is no stage .did you mean 'stage4'"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(settings, message):
    with pytest.raises(JaxftError, match=message) as caught:
        _phases({"a": phase(train="full")}, **settings)
    assert "\n" not in str(caught.value)


def test_gradual_unfreezing_trains_the_head_and_then_a_stage_more_each_phase():
    made = _phases(gradual(("stage3", "stage4"), length=("1 epochs", "2 epochs", "30 steps"), lr=(1e-2, 1e-3, 1e-4)))
    assert [(one.start, one.stop, one.lr) for one in made] == [(0, 10, 1e-2), (10, 30, 1e-3), (30, 60, 1e-4)]
    assert [sorted({path.split("/")[0] for path in one.generations}) for one in made] == [
        ["fc"],
        ["fc", "layer4"],
        ["fc", "layer3", "layer4"],
    ]
    assert [_since(made[-1], part) for part in ("fc", "layer4", "layer3")] == [one.name for one in made]


def test_ten_phases_and_more_stay_in_their_order():
    stages = [f"stage{number}" for number in range(1, 12)]
    made = gradual(stages, weight_decay=0.1)
    parts = [made[name].train for name in sorted(made)]
    assert parts == ["head", *(f"from:{stage}" for stage in reversed(stages))]
    assert all(section.optim.weight_decay == 0.1 and section.lr is None for section in made.values())
    assert [section.train for section in gradual(("full", "stage4")).values()] == ["head", "from:stage4", "full"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stages": ()}, r"gradual takes the names of stages"),
        ({"stages": "stage4"}, r"gradual takes the names of stages, each once, the head left out, not 'stage4'"),
        ({"stages": ("stage4", "stage4")}, r"each once"),
        ({"stages": ("stage4", "head")}, r"the head left out"),
        ({"stages": ("stage4", "full")}, r"'full' comes first"),
        ({"stages": ("stage4",), "length": ("1 epochs",)}, r"gradual has 1 lengths for 2 phases: head, from:stage4"),
        ({"stages": ("stage4",), "lr": (0.1, 0.2, 0.3)}, r"gradual has 3 rates for 2 phases"),
    ],
)
def test_gradual_with_what_does_not_fit_is_one_clear_error(arguments, message):
    with pytest.raises(JaxftError, match=message):
        gradual(**arguments)


@pytest.mark.parametrize("averages", [{"ema": 0.9}, {"swa": "0 steps"}])
def test_a_schedule_free_optimizer_averages_by_itself(averages):
    with pytest.raises(JaxftError, match="averages by itself: set config.train"):
        _phases({"a": phase(train="head", name="schedule_free_sgd", schedule="constant")}, **averages)


def test_adapters_are_new_as_the_head_is_and_go_with_the_layers_of_their_modules():
    model = with_adapter(MODEL, "lora", rank=2)
    (made,) = _phases({"a": phase(train="lora+head")}, model=model)
    assert (made.lr, made.lr_source) == (1e-3, "the usual one of adamw, resnet, nothing that is pretrained")
    named = layers(model.shapes[0], model.stages)
    own = layers(MODEL.shapes[0], MODEL.stages)
    assert list(named) == list(own)
    assert "adapters/layer3/1/conv2/lora_a" in named["layer3/1"]
    assert sorted(path for paths in named.values() for path in paths) == sorted(tree.paths(model.shapes[0]))
