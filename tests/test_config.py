"""Configurations: every key has a default, misspelt ones are named, durations become steps."""

import inspect
import json

import pytest
from ml_collections import ConfigDict, FrozenConfigDict

from jaxft.config import Clock, call, check_config, default_config, differences, phase, to_json
from jaxft.data import eval_batches, open_data, train_batches
from jaxft.errors import JaxftError
from jaxft.log import RunLog
from jaxft.optim import make_optimizer
from jaxft.probing import Settings
from jaxft.weights import load_model

CLOCK = Clock(examples=1000, batch_size=32)


def _set(config, path, value=1):
    *sections, key = path.split(".")
    for section in sections:
        config = config[section]
    config[key] = value


def test_the_default_configuration_is_valid_and_made_anew_each_time():
    config = default_config()
    check_config(config)
    config.model.name = "resnet50"
    config.phases.phase1.optim.lr = 1.0
    assert default_config().model.name == "efficientnet_lite0"
    assert "lr" not in default_config().phases.phase1.optim


@pytest.mark.parametrize(
    ("section", "function", "other"),
    [
        ("model", load_model, {"zero_shot", "outputs"}),
        ("data", open_data, set()),
        ("input", train_batches, {"eval_batch_size", "unlabelled_ratio", "strong_augment"}),
        ("optim", make_optimizer, {"warmup", "decay_norms_and_biases", "layer_decay", "stage_lr", "keep_moments"}),
        ("log", RunLog, set()),
        ("probe", Settings, set()),
    ],
)
def test_each_key_of_a_section_is_an_argument_of_the_function_it_is_for(section, function, other):
    keys = set(default_config()[section])
    assert other <= keys
    assert keys - other <= set(inspect.signature(function).parameters)
    if section == "input":
        assert keys - other - {"augment", "sampler", "scaled_decode", "views"} <= set(
            inspect.signature(eval_batches).parameters
        )


def test_defaults_of_the_optimizer_are_the_functions_own():
    taken = inspect.signature(make_optimizer).parameters
    for key, value in default_config().optim.items():
        if key in taken and key not in ("lr", "options", "schedule_options"):
            assert value == taken[key].default, key


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("sead", r"config has no key 'sead' .did you mean 'seed'"),
        ("modle", r"config has no key 'modle' .did you mean 'model'"),
        ("model.nmae", r"config.model has no key 'nmae' .did you mean 'name'"),
        ("model.Size", r"config.model has no key 'Size' .did you mean 'size'"),
        ("data.val_fracton", r"config.data has no key 'val_fracton' .did you mean 'val_fraction'"),
        ("input.batchsize", r"config.input has no key 'batchsize' .did you mean 'batch_size'"),
        ("loss.nam", r"config.loss has no key 'nam' .did you mean 'name'"),
        ("optim.lrr", r"config.optim has no key 'lrr' .did you mean 'lr'"),
        ("train.accum_stpes", r"config.train has no key 'accum_stpes' .did you mean 'accum_steps'"),
        ("log.tensorbord", r"config.log has no key 'tensorbord' .did you mean 'tensorboard'"),
        ("phases.phase1.lenght", r"config.phases.phase1 has no key 'lenght' .did you mean 'length'"),
        (
            "phases.phase1.optim.weightdecay",
            r"config.phases.phase1.optim has no key 'weightdecay' .did you mean 'weight_decay'",
        ),
        ("train.xyzzy", r"config.train has no key 'xyzzy'$"),
    ],
)
def test_a_misspelt_key_is_named_with_its_section_and_what_is_near(path, message):
    config = default_config()
    _set(config, path)
    with pytest.raises(JaxftError, match=message):
        check_config(config)


@pytest.mark.parametrize("path", ["seed", "model", "train.patience", "loss.options", "phases", "phases.phase1.train"])
def test_a_configuration_that_lacks_a_key_is_told_to_start_from_the_default(path):
    config = default_config()
    *sections, key = path.split(".")
    where = config
    for section in sections:
        where = where[section]
    del where[key]
    with pytest.raises(JaxftError, match=rf"config.*lacks '{key}': start a recipe from jaxft.config.default_config"):
        check_config(config)


def test_options_take_any_key_and_phases_any_name():
    config = default_config()
    config.loss.options.gamma = 2.0
    config.optim.options.b3 = 0.1
    config.phases = ConfigDict({name: phase() for name in ("a", "optim", "options", "phases")})
    config.phases.a.optim.options = ConfigDict({"whatever": 1})
    check_config(config)
    for name in config.phases:
        broken = config.copy_and_resolve_references()
        broken.phases[name].trian = "head"
        with pytest.raises(JaxftError, match=rf"config.phases.{name} has no key 'trian' .did you mean 'train'"):
            check_config(broken)


@pytest.mark.parametrize("given", [3, "head", {"train": "head"}])
def test_a_phase_that_is_no_section_is_told_how_to_be_made(given):
    config = default_config()
    config.phases = ConfigDict({"only": given}, convert_dict=False)
    with pytest.raises(JaxftError, match=r"config.phases.only is .*, not a section: make it with jaxft.config.phase"):
        check_config(config)


def test_a_section_that_is_a_value_is_an_error():
    config = ConfigDict({**dict(default_config().items()), "train": 3})
    with pytest.raises(JaxftError, match=r"config.train is 3, not a section"):
        check_config(config)


def test_a_frozen_configuration_can_be_checked():
    check_config(FrozenConfigDict(default_config()))


def test_a_phase_keeps_its_rate_apart_and_only_what_differs_of_the_rest():
    made = phase(train="head", freeze="**/bn", length="3 steps", lr=0.1, weight_decay=0.5, schedule="constant")
    assert made.to_dict() == {
        "train": "head", "freeze": "**/bn", "length": "3 steps", "lr": 0.1,
        "optim": {"weight_decay": 0.5, "schedule": "constant"},
    }  # fmt: skip
    assert phase().to_dict() == {"train": "full", "freeze": "", "length": "5 epochs", "lr": None, "optim": {}}


def test_a_value_of_another_type_is_refused_when_it_is_set():
    config = default_config()
    for path, value in (("train.accum_steps", "two"), ("model.dropout", "much"), ("model.name", 3.5)):
        with pytest.raises(TypeError):
            _set(config, path, value)
    config.model.dropout = 0.5
    config.optim.clip_norm = 1.0
    config.optim.clip_norm = None
    check_config(config)


@pytest.mark.parametrize(
    ("duration", "steps"),
    [
        ("200 steps", 200),
        ("1 step", 1),
        (" 7  steps ", 7),
        ("7steps", 7),
        ("3.0 steps", 3),
        ("0 steps", 0),
        ("2 epochs", 62),  # 2000 / 32 = 62.5, to the even
        ("1 epoch", 31),  # 31.25
        ("0.5 epochs", 16),  # 15.6
        ("0.001 epochs", 1),  # never nothing
        ("0 epochs", 0),
        ("320 examples", 10),
        ("1 example", 1),
        ("0 examples", 0),
        (12, 12),
        (0, 0),
    ],
)
def test_durations_in_steps_epochs_and_examples_become_steps(duration, steps):
    found = CLOCK.steps(duration, "config.train.eval_every")
    assert found == steps
    assert isinstance(found, int)


@pytest.mark.parametrize(
    "duration",
    ["", "5", "steps", "five steps", "-3 steps", "2 days", "1e3 steps", "2 epochs 3 steps", "1,5 epochs", 2.5, None],
)
def test_what_is_no_duration_is_said_with_examples_of_one(duration):
    with pytest.raises(JaxftError, match=r"config.train.log_every is '.*': a duration is written '200 steps', '2 epochs' or"):
        CLOCK.steps(duration, "config.train.log_every")


def test_half_a_step_is_an_error():
    with pytest.raises(JaxftError, match=r"config.optim.warmup is '1.5 steps': steps are whole"):
        CLOCK.steps("1.5 steps", "config.optim.warmup")


def test_epochs_of_a_set_smaller_than_a_batch_are_single_steps():
    assert Clock(examples=3, batch_size=32).steps("1 epochs", "x") == 1
    assert Clock(examples=3, batch_size=32).steps("100 epochs", "x") == 9


def test_call_hands_a_section_to_its_function_and_more_beside_it():
    def train(*, lr, name="sgd", groups=None):
        return lr, name, groups

    assert call(train, {"lr": 1, "name": "adam"}, "config.optim", groups=3) == (1, "adam", 3)


def test_call_names_the_section_of_a_key_its_function_does_not_take():
    def make_it(*, momentum=0.9, size=1):
        raise AssertionError("not to be called")

    with pytest.raises(JaxftError, match=r"config.optim.momntum is not an argument of make_it .did you mean 'momentum'"):
        call(make_it, {"momntum": 0.5}, "config.optim", size=2)


def test_an_error_of_the_function_itself_passes_through_call():
    def make_it(size):
        raise TypeError("from inside")

    with pytest.raises(TypeError, match="from inside"):
        call(make_it, {"size": 1}, "config.optim")


def test_json_of_a_configuration_reads_back_as_the_same_configuration():
    config = default_config()
    config.model.dropout = 0.1
    config.loss.options.alpha = [1, 2.5]
    config.phases.phase1 = phase(train="head", lr=3e-4)
    text = to_json(config)
    plain = json.loads(text)
    assert plain == config.to_dict()
    assert plain["model"]["size"] is None
    assert text == to_json(ConfigDict(plain))
    assert list(plain) == sorted(plain)
    check_config(ConfigDict(plain))


def test_json_does_not_depend_on_the_order_in_which_keys_were_set():
    config = ConfigDict(dict(reversed(list(default_config().items()))))
    assert to_json(config) == to_json(default_config())


def test_differences_name_each_key_that_changed_came_or_went():
    old, new = default_config().to_dict(), default_config().to_dict()
    assert differences(old, new) == []
    new["seed"] = 1
    new["optim"]["lr"] = 0.5
    new["phases"]["phase2"] = {"train": "head"}
    del new["model"]["head"]
    assert differences(old, new) == [
        "config.model.head was 'linear', is None",
        "config.optim.lr was None, is 0.5",
        "config.phases.phase2 was None, is {'train': 'head'}",
        "config.seed was 0, is 1",
    ]
