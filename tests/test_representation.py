"""Configs that learn a representation: what they are, and what does not go together."""

import pytest
from small_run import write_small_recipe

from jaxft.cli.config import read_config
from jaxft.errors import JaxftError
from jaxft.plan import make_plan


@pytest.fixture(scope="module")
def small(made_once, photos):
    return made_once("representation", lambda folder: write_small_recipe(folder / "small.py", photos)) / "small.py"


VIEWS = {"input.views": 2, "input.augment": "crop_flip", "train.monitor": "loss", "train.mode": "min"}
SIMCLR = {**VIEWS, "data.task": "unlabelled"}
VIT = {"model.name": "tiny_nets:tiny_vit", "model.size": 32}
MAE = {**VIT, "data.task": "unlabelled", "loss.name": "masked_autoencoder", "train.monitor": "loss", "train.mode": "min"}


def _plan(small, settings, **more):
    config = read_config(str(small))
    for key, value in {**settings, **more}.items():
        section, name = key.split(".")
        config[section][name] = value
    return make_plan(config, weights=False)


def test_durations_in_epochs_are_of_the_data_whatever_the_views(small):
    once, twice = (
        _plan(small, {"train.eval_every": "1 epochs", "input.views": views, "input.augment": "crop_flip"}) for views in (1, 2)
    )
    examples = len(once.splits.train)
    assert (once.eval_every, twice.eval_every) == (round(examples / 8), round(examples / 4))
    assert (once.task.name, once.eval_views, twice.task.name, twice.eval_views) == ("classify", 1, "classify", 1)


@pytest.mark.parametrize(
    ("settings", "outputs", "views"),
    [
        (SIMCLR, 128, 2),
        ({**SIMCLR, "model.outputs": 9, "model.head": "mlp"}, 9, 2),
        ({**SIMCLR, "loss.name": "dino", "train.ema_decay": 0.9, "model.head": "cosine:4"}, 128, 2),
        ({**VIEWS, "loss.name": "supervised_contrastive"}, 128, 2),
        ({**MAE, "model.head": "mae:1x32"}, 32 * 32 * 3, 1),
    ],
    ids=["simclr", "outputs", "dino", "supervised_contrastive", "mae"],
)
def test_their_outputs_are_no_classes_and_the_loss_is_their_only_figure(small, settings, outputs, views):
    plan = _plan(small, settings)
    assert plan.task.name == plan.record["task"] == "unlabelled"
    assert list(plan.task.metrics.__annotations__) == ["loss"]
    assert plan.model.num_classes == plan.record["model"]["num_classes"] == outputs
    assert plan.eval_views == views
    assert plan.splits.class_names == (() if settings.get("data.task") else ("circle", "cross", "dots"))
    assert not [note for note in plan.splits.notes if "unequal" in note]


def test_a_loss_of_ones_own_has_as_many_outputs_as_are_asked_for(small):
    plan = _plan(small, {**VIEWS, "loss.name": "jaxft.losses:simclr", "model.outputs": 5})
    assert (plan.task.name, plan.model.num_classes) == ("unlabelled", 5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"input.views": 3}, r"views \(3\) does not divide config.input.batch_size \(8\)"),
        ({**VIEWS, "input.eval_batch_size": 9}, r"views \(2\) does not divide config.input.eval_batch_size \(9\)"),
        ({**VIEWS, "train.accum_steps": 8}, r"accum_steps \(8\) does not divide the 4 examples of a batch"),
        ({"input.views": 0}, "config.input.views is 0: it must be at least 1"),
        ({"model.outputs": 0}, "config.model.outputs is 0: it must be at least 1"),
        ({**SIMCLR, "input.augment": "none"}, "makes all views alike"),
        ({**SIMCLR, "input.views": 1}, "the loss 'simclr' compares views of a picture: set config.input.views=2"),
        ({**SIMCLR, "loss.name": "dino", "input.views": 1}, "the loss 'dino' compares views"),
        ({**SIMCLR, "loss.name": "dino"}, "no averages are kept: set config.train.ema_decay"),
        ({**SIMCLR, "features.cache": True}, "config.features.cache keeps single looks"),
        ({**SIMCLR, "loss.name": "focal"}, "config.loss.name is 'focal', which needs labels"),
        ({**SIMCLR, "train.monitor": "accuracy"}, "config.train.monitor is 'accuracy'; the validation figures are loss"),
        ({**SIMCLR, "train.mode": "max"}, "set config.train.mode to 'min'"),
        ({**SIMCLR, "input.augment": "crop_flip, mixup"}, "changes labels or mixes pictures, which 'simclr' has no use for"),
        ({**SIMCLR, "input.sampler": "balanced"}, "pictures without labels take 'shuffle'"),
        ({**SIMCLR, "model.zero_shot": "texts.npz"}, "config.model.zero_shot tells classes apart"),
        ({**SIMCLR, "loss.name": "supervised_contrastive"}, "needs one class a picture: the task is 'unlabelled'"),
        ({**SIMCLR, "loss.name": "simclrr"}, "takes simclr, supervised_contrastive, dino, masked_autoencoder"),
        ({**MAE}, "do not go together: set config.model.head='mae'"),
        ({**MAE, "loss.name": "", "model.head": "mae:1x32", "input.views": 2, "input.augment": "crop"}, "set config.loss.name"),
        ({**VIT, "model.head": "mae:1x32"}, "config.model.head 'mae' gives pixels"),
        ({**MAE, "model.head": "mae:1x32", "model.outputs": 4}, "as many outputs as the image has numbers: set it to None"),
        ({**MAE, "model.head": "mae:1x32", "features.cache": True}, "the head 'mae' hides other patches each time"),
        ({**SIMCLR, "loss.options": {"temperature": 0.0}}, "config.loss.options: temperature is 0.0: it must be positive"),
        ({**SIMCLR, "loss.options": {"temperature": "warm"}}, "simclr|the loss does not work with the task 'unlabelled'"),
        (
            {**SIMCLR, "loss.name": "dino", "train.ema_decay": 0.9, "loss.options": {"teacher_temperature": -1.0}},
            "config.loss.options: teacher_temperature is -1.0",
        ),
        ({"model.outputs": 4}, "config.model.outputs 4 it takes"),
    ],
)
def test_what_does_not_go_together_is_one_clear_error(small, settings, said):
    with pytest.raises(JaxftError, match=said):
        _plan(small, settings)
