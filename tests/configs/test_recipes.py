"""Each recipe is a whole config, takes the arguments it says, and trains what it says."""

import importlib.util
from pathlib import Path

import pytest

from jaxft import tree
from jaxft.config import check_config
from jaxft.models import build
from jaxft.plan import make_plan
from jaxft.tuning import FreezeSpec, make_mask

CONFIGS = Path(__file__).parents[2] / "configs"


def recipe(name, *argument):
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*argument)


def trained(config, classes=10):
    model = build(config.model.name, classes)
    params, _ = model.shapes
    phases = [config.phases[name] for name in sorted(config.phases)]
    masks = [make_mask(FreezeSpec.parse(phase.train, phase.freeze), params, model.stages) for phase in phases]
    return model, [tree.paths(tree.split(params, mask)[0]) for mask in masks]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_every_recipe_is_a_whole_config_without_an_argument(path):
    check_config(recipe(path.stem))


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("quickstart", "scrach"),
        ("vgg16_cifar10", "all"),
        ("finetune_folder", "pth=photos"),
        ("gradual", "pth=photos"),
        ("pretrain", "method=byol"),
    ],
)
def test_an_argument_a_recipe_does_not_take_is_an_error_that_names_those_it_takes(name, argument):
    with pytest.raises(ValueError, match=f"{name} takes"):
        recipe(name, argument)


def test_the_quickstart_trains_the_head_first_and_then_the_last_stages_at_a_lower_rate():
    config = recipe("quickstart")
    model, (first, second) = trained(config)
    assert {model.stage_of(path) for path in first} == {"head"}
    assert {model.stage_of(path) for path in second} == {"stage4", "stage5", "stage6", "stage7", "neck", "head"}
    assert config.phases.phase2.lr < config.phases.phase1.lr
    assert not config.features.cache
    scratch = recipe("quickstart", "scratch")
    assert scratch.model.pretrained == ""
    assert scratch.phases.phase1.length == "4 epochs"
    assert trained(scratch)[1][0] == tree.paths(model.shapes[0])


def test_the_head_only_quickstart_reads_features_of_fewer_views_than_epochs():
    config = recipe("quickstart", "head")
    model, (paths,) = trained(config)
    assert {model.stage_of(path) for path in paths} == {"head"}
    assert (config.features.cache, config.features.views, config.phases.phase1.length) == (True, 2, "10 epochs")
    check_config(config)


def test_vgg16_on_cifar10_is_the_classic_exercise():
    config = recipe("vgg16_cifar10")
    assert (config.optim.name, config.optim.lr, config.optim.momentum, config.optim.weight_decay) == ("sgd", 1e-3, 0.9, 5e-4)
    assert (config.input.batch_size, config.phases.phase1.length, config.optim.schedule) == (64, "10 epochs", "constant")
    assert config.data.val_fraction > 0
    assert config.model.pretrained == "imagenet"
    assert trained(config)[1] == [["classifier/6/bias", "classifier/6/kernel"]]
    assert len(trained(recipe("vgg16_cifar10", "full"))[1][0]) == 32


def test_the_folder_recipe_takes_path_model_size_and_what_to_train():
    config = recipe("finetune_folder", "path=photos,model=resnet50,size=96,train=from:stage3")
    assert (config.data.source, config.model.name, config.model.size) == ("folder:photos", "resnet50", 96)
    model, (paths,) = trained(config)
    assert {model.stage_of(path) for path in paths} == {"stage3", "stage4", "head"}
    assert recipe("finetune_folder", "some/photos").data.source == "folder:some/photos"


def test_the_gradual_recipe_trains_a_stage_more_each_phase_at_a_lower_rate():
    config = recipe("gradual", "path=photos")
    model, parts = trained(config)
    stages = [{model.stage_of(path) for path in paths} for paths in parts]
    assert stages == [{"head"}, {"stage4", "head"}, {"stage3", "stage4", "head"}, {*model.stages}]
    rates = [config.phases[name].lr for name in sorted(config.phases)]
    assert rates == sorted(rates, reverse=True)
    assert len({*rates}) == 4


@pytest.mark.parametrize(
    ("method", "model", "views", "loss"),
    [
        ("simclr", "resnet18", 2, "simclr"),
        ("dino", "resnet18", 2, "dino"),
        ("mae", "vit_tiny_patch16_224", 1, "masked_autoencoder"),
    ],
)
def test_the_pretraining_recipe_is_a_config_of_each_method_that_needs_no_label(method, model, views, loss, photos):
    config = recipe("pretrain", f"path={photos},method={method},model={model},size=32")
    config.model.pretrained = ""
    check_config(config)
    plan = make_plan(config, weights=False)
    assert (config.data.task, config.loss.name, config.input.views) == ("unlabelled", loss, views)
    assert (plan.task.name, plan.selection["monitor"], plan.selection["mode"]) == ("unlabelled", "loss", "min")
    assert set(plan.phases[0].trained) == set(tree.paths(plan.params))
    assert (plan.average is not None) == (method == "dino")
