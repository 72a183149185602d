"""What a plan makes of classes of unequal size: the order, the losses, and the line for the user."""

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import draw_folder, write_recipe

from jaxft import losses
from jaxft.cli.config import read_config
from jaxft.errors import JaxftError
from jaxft.network import network_and_weights
from jaxft.optim.schedules import Plateau
from jaxft.plan import make_plan

#: Of 24 training examples.
COUNTS = np.array([16.0, 6, 2])
OUTPUTS = {"logits": jnp.array([[1.0, 0, -1], [0, 2, 0], [0, 0, 0.5]])}
BATCH = {"label": jnp.array([0, 1, 2])}


@pytest.fixture(scope="module")
def unequal(tmp_path_factory):
    """A recipe on class folders of 18, 7 and 3 pictures, of which one each, and two, are to validate."""
    folder = draw_folder(tmp_path_factory.mktemp("unequal") / "photos", per_class=18, size=8)
    for name, kept in (("cross", 7), ("dots", 3)):
        for file in sorted((folder / name).iterdir())[kept:]:
            file.unlink()
    return write_recipe(folder.parent / "tiny.py", folder)


def _plan(recipe, *overrides):
    fixed = ("--config.data.val_fraction=0.1", "--config.data.test_fraction=0.0")
    return make_plan(read_config(str(recipe), [*fixed, *overrides]), weights=False)


def _told(plan):
    return [note for note in plan.splits.notes if "unequal" in note or "favour" in note]


def test_the_user_is_told_once_of_unequal_classes_and_what_helps(unequal):
    plan = _plan(unequal)
    (line,) = _told(plan)
    assert line.startswith("classes are unequal: 'circle' has 16 training examples, 8 for each of the 2 of 'dots'; ")
    for knob in ("sampler='balanced'", "class_weights='balanced'", "'logit_adjusted'", "monitor='balanced_accuracy'"):
        assert knob in line


@pytest.mark.parametrize("override", ["loss.name=logit_adjusted", "input.sampler=sqrt", "loss.options.class_weights=[1, 2, 3]"])
def test_who_has_chosen_a_remedy_is_not_told_of_remedies(unequal, override):
    assert _told(_plan(unequal, f"--config.{override}")) == []


def test_two_remedies_at_once_are_told(unequal):
    (line,) = _told(_plan(unequal, "--config.input.sampler=balanced", "--config.loss.options.class_weights=balanced"))
    assert "mostly one of them is enough" in line


def test_equal_classes_are_nothing_to_tell(recipe):
    assert _told(_plan(recipe)) == []


def test_the_counts_of_the_training_split_reach_the_loss_and_evaluations_do_without(unequal):
    plan = _plan(unequal, "--config.loss.name=focal", "--config.loss.options.class_weights=balanced")
    expected = losses.focal(OUTPUTS, BATCH, class_weights=tuple(24 / (3 * COUNTS)))
    np.testing.assert_allclose(plan.loss(OUTPUTS, BATCH), expected, rtol=1e-6)
    np.testing.assert_array_equal(plan.eval_loss(OUTPUTS, BATCH), losses.focal(OUTPUTS, BATCH))
    adjusted = _plan(unequal, "--config.loss.name=logit_adjusted", "--config.loss.options.tau=0.5")
    expected = losses.logit_adjusted(OUTPUTS, BATCH, tau=0.5, class_counts=COUNTS)
    np.testing.assert_array_equal(adjusted.loss(OUTPUTS, BATCH), expected)
    np.testing.assert_array_equal(adjusted.eval_loss(OUTPUTS, BATCH), losses.softmax_cross_entropy(OUTPUTS, BATCH))


def test_options_without_a_name_are_for_the_loss_of_the_task(unequal):
    plan = _plan(unequal, "--config.loss.options.label_smoothing=0.1", "--config.loss.options.class_weights=sqrt")
    expected = losses.softmax_cross_entropy(OUTPUTS, BATCH, label_smoothing=0.1, class_weights="sqrt", class_counts=COUNTS)
    np.testing.assert_array_equal(plan.loss(OUTPUTS, BATCH), expected)
    judged = losses.softmax_cross_entropy(OUTPUTS, BATCH, label_smoothing=0.1)
    np.testing.assert_array_equal(plan.eval_loss(OUTPUTS, BATCH), judged)


def test_a_loss_of_the_users_own_is_given_the_counts_it_asks_for(unequal, monkeypatch, tmp_path):
    (tmp_path / "counting_loss.py").write_text(
        "import jax.numpy as jnp\n"
        "def loss(outputs, batch, *, class_counts, scale=1.0):\n"
        "    return scale * jnp.asarray(class_counts)[batch['label']]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    plan = _plan(unequal, "--config.loss.name=counting_loss:loss", "--config.loss.options.scale=2")
    np.testing.assert_array_equal(plan.loss(OUTPUTS, BATCH), 2 * COUNTS)


def test_the_order_of_a_plan_is_the_samplers(unequal):
    order = _plan(unequal, "--config.input.sampler=balanced").order
    shown = [order.labels[order.example_at(position)[1]] for position in range(24)]
    assert np.bincount(shown).tolist() == [8, 8, 8]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["input.sampler=balance"], "config.input.sampler is 'balance', not 'shuffle' or 'balanced' or 'sqrt'"),
        (["loss.options.class_weight=balanced"], "takes no option 'class_weight' .did you mean 'class_weights'"),
        (["loss.name=focal", "loss.options.tau=1"], "the loss 'focal' takes no option 'tau'"),
        (["loss.options.class_weights=blanced"], "config.loss.options: class_weights is 'blanced' .did you mean 'balanced'"),
        (["loss.options.class_weights=[1, 2]"], r"config.loss.options: class_weights is \[1, 2\]: expected 3 numbers"),
        (["loss.name=focal", "loss.options.gamma=two"], "config.loss: focal does not work .*'gamma': 'two'"),
        (["loss.name=logit_adjusted", "loss.options.class_counts=[0, 0, 0]"], "there are no training examples"),
        (["los.options.gamma=1"], "config has no key 'los'"),
        (["loss.options.a.b=1"], "config.loss.options has no key 'a'"),
        (["train.monitor=balanced_acuracy"], "did you mean 'balanced_accuracy'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_does_not_fit_is_a_clear_error(unequal, overrides, message):
    with pytest.raises(JaxftError, match=message):
        _plan(unequal, *(f"--config.{override}" for override in overrides))


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_labels_without_one_class_an_example_take_no_sampler(unequal, task, tmp_path):
    pictures = sorted((unequal.parent / "photos" / "circle").iterdir())
    rows = [f"{file},{'a;b' if task == 'multilabel' else 0.5}" for file in pictures]
    (tmp_path / "data.csv").write_text("\n".join(["path,label", *rows]))
    settings = (f"--config.data.source=csv:{tmp_path}/data.csv", f"--config.data.task={task}")
    more = ("--config.train.monitor=loss", "--config.train.mode=min", *settings)
    assert _plan(unequal, *more).order.sampler == "shuffle"
    with pytest.raises(JaxftError, match="multi-label data and regressions take 'shuffle'"):
        _plan(unequal, *more, "--config.input.sampler=balanced")


def test_a_schedules_options_come_from_the_command_line_and_the_rates_are_recorded(recipe):
    schedule = ("schedule=plateau", "schedule_options.patience=2", "schedule_options.threshold_mode=abs")
    plan = _plan(recipe, *(f"--config.optim.{setting}" for setting in schedule))
    assert plan.phases[0].plateau == Plateau("max", patience=2, threshold_mode="abs")
    assert plan.record["lr"] == {"phase1": 1e-2, "phase2": 1e-2}
    with pytest.raises(JaxftError, match=r"'plateau' has no option 'patiense' .did you mean 'patience'"):
        _plan(recipe, *(f"--config.optim.{setting}" for setting in (*schedule, "schedule_options.patiense=2")))


def test_weights_are_those_that_the_name_says_before_the_default(unequal):
    def found(name, *more):
        return network_and_weights(read_config(str(unequal), [f"--config.model.name={name}", *more]))

    default, other = "--config.model.pretrained=imagenet", "--config.model.pretrained=weights.pth"
    assert found("resnet50") == ("resnet50", None)  # the recipe's are drawn
    assert found("resnet50", default) == ("resnet50", "imagenet")
    assert found("vit_base_patch32_clip_224.openai", default) == ("vit_base_patch32_clip_224", "openai")
    assert found("resnet50", other) == ("resnet50", "weights.pth")
    with pytest.raises(JaxftError, match="names the weights 'openai', config.model.pretrained 'weights.pth': give one"):
        found("vit_base_patch32_clip_224.openai", other)
