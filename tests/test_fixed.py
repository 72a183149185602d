"""What a loss reads beside the network: a teacher, and an anchor."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_run import refuses_another_run

from jaxft import tree
from jaxft.cli.config import read_config
from jaxft.data import eval_batches
from jaxft.errors import JaxftError
from jaxft.fixed import Fixed, read_fixed, read_importance
from jaxft.losses import resolve, softmax_cross_entropy
from jaxft.parallel import make_mesh
from jaxft.plan import make_plan
from jaxft.run import train
from jaxft.states import abstract_state, enter, first_state, first_weights
from jaxft.weights import save_safetensors
from jaxft.workdir import load_run

pytestmark = pytest.mark.usefixtures("quick_compiles", "one_device")


def stay_near(outputs, batch, *, params, anchor, strength=1.0):
    """Cross-entropy and a pull to where the run began, of each parameter as strong as it matters."""
    plain = softmax_cross_entropy(outputs, batch)
    if anchor is None:
        return plain
    now = tree.flatten(params)
    matters = tree.flatten(anchor["importance"])
    pulls = [
        (matters.get(path, 1.0) * (now[path] - began) ** 2).sum() for path, began in tree.flatten(anchor["params"]).items()
    ]
    return plain + strength / 2 * sum(pulls)


def _distilling(small, small_run, **options):
    config = read_config(str(small))
    config.loss.name, config.teacher.run = "distillation", str(small_run)
    config.loss.options = options
    return config


def test_a_run_with_a_teacher_comes_nearer_to_it_than_one_without(small, small_run, tmp_path):
    config = _distilling(small, small_run, weight=1.0, temperature=1.0)
    config.seed = 5
    config.phases.phase1.length, config.phases.phase1.lr = "30 steps", 0.1
    config.train.eval_every = "30 steps"
    train(config, tmp_path / "run", test=False)
    plan, model = make_plan(config), load_run(small_run)
    images = next(eval_batches(plan.splits.train, plan.model.preprocessing, batch_size=21))["image"]
    forward = jax.jit(lambda params, state: model.apply(params, state, images, train=False, rng=None)[0]["logits"])
    wanted = jax.nn.softmax(forward(model.params, model.model_state))
    tuned = load_run(tmp_path / "run")
    began = jax.jit(plan.model.init)(jax.random.key(config.seed))
    apart = [
        float(jnp.abs(jax.nn.softmax(forward(*given)) - wanted).mean()) for given in (began, (tuned.params, tuned.model_state))
    ]
    assert apart[1] < 0.5 * apart[0], apart


def test_a_checkpoint_holds_no_teacher_and_evaluations_are_of_the_labels(small, small_run, tmp_path):
    config = _distilling(small, small_run)
    config.phases.phase1.length = "2 steps"
    train(config, tmp_path / "run", test=False)
    items = [
        {path.name for path in (folder / "checkpoints" / step).iterdir()}
        for folder, step in ((tmp_path / "run", "2"), (small_run, "20"))
    ]
    assert items[0] == items[1]
    given = ({"logits": jnp.array([[2.0, -1.0, 0.5]])}, {"label": jnp.array([1])})
    plan, plain = make_plan(config), make_plan(read_config(str(small)))
    np.testing.assert_array_equal(plan.eval_loss(*given, teacher=None), plain.eval_loss(*given))


def test_a_run_goes_on_only_with_the_teacher_it_began_with(small, small_run, tmp_path):
    shutil.copytree(small_run, tmp_path / "teacher")
    config = _distilling(small, tmp_path / "teacher")
    refuses_another_run(small, config, tmp_path / "teacher", "config.teacher.run", tmp_path / "run")


def test_the_pixels_a_teacher_sees_are_resized_to_its_size(small, small_run):
    fixed = Fixed(load_run(small_run))
    apply, model = fixed.teacher_apply, fixed.teacher
    small_image = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3), maxval=255)
    found = apply(model.params, model.model_state, small_image, train=False, rng=None)[0]["logits"]
    resized = jnp.clip(jax.image.resize(small_image, (2, 16, 16, 3), "linear"), 0, 255)
    wanted = model.apply(model.params, model.model_state, resized, train=False, rng=None)[0]["logits"]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_the_teachers_classes_are_found_by_name(small_run):
    fixed = Fixed(load_run(small_run))
    np.testing.assert_array_equal(fixed.classes_among(("dots", "square", "circle")), [2, -1, 0])  # circle, cross, dots
    assert Fixed().classes_among(("dots",)) is None


def _near(small, importance=""):
    config = read_config(str(small))
    config.loss.name = "test_fixed:stay_near"
    config.loss.options = {"strength": 1e4}
    config.anchor.importance = str(importance)
    config.phases.phase1.train = "from:stage3"
    return config


def test_an_anchor_is_where_the_trained_leaves_of_the_run_began_in_later_phases_too(small, tmp_path):
    config = _near(small)
    plan, mesh = make_plan(config), make_mesh("1x1x1", jax.devices()[:1])
    phase = plan.phases[0]
    state = first_state(plan, config, mesh)
    began, _ = first_weights(plan, phase, config, mesh)
    trained = tree.flatten(tree.split(began, phase.mask)[0])
    found = tree.flatten(state.fixed["anchor"]["params"])
    assert found.keys() == trained.keys()
    assert all(path.startswith(("stage3", "head")) for path in found)
    moved = jax.tree.map(lambda leaf: leaf + 1, state.params)
    later = enter(plan, phase, config, mesh, moved, state.model_state, 3)
    for path, leaf in tree.flatten(later.fixed["anchor"]["params"]).items():
        np.testing.assert_array_equal(leaf, trained[path], err_msg=path)
    shapes = abstract_state(plan, phase, config, mesh).fixed
    assert jax.tree.map(lambda leaf: leaf.shape, shapes) == jax.tree.map(lambda leaf: leaf.shape, later.fixed)


def test_what_matters_stays_and_what_the_file_does_not_name_is_free(small, tmp_path):
    plan = make_plan(_near(small))
    began = tree.flatten(jax.jit(plan.model.init)(jax.random.key(0))[0])

    def moved(path, strength=1e3):
        """How far a kernel goes where `path` alone matters."""
        file = tmp_path / f"{path.replace('/', '-')}.safetensors"
        save_safetensors(file, {path: np.ones(began[path].shape, np.float32)}, {})
        config = _near(small, file)
        config.loss.options = {"strength": strength}
        config.phases.phase1.length, config.phases.phase1.lr = "8 steps", 1e-3
        config.train.eval_every = "8 steps"
        workdir = tmp_path / path.replace("/", "-")
        train(config, workdir, test=False)
        return np.abs(tree.flatten(load_run(workdir).params)["stage3/conv/kernel"] - began["stage3/conv/kernel"]).max()

    assert 0 < moved("stage3/conv/kernel") < 0.5 * moved("head/bias")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss.name": "distillation"}, "learns from a teacher: set config.teacher.run"),
        ({"teacher.run": "somewhere"}, "takes no teacher: set config.loss.name to 'distillation'"),
        ({"loss.name": "distillation", "teacher.run": "/nowhere"}, "no run in /nowhere"),
        ({"anchor.importance": "fisher.npz"}, "takes no `anchor`"),
    ],
)
def test_what_does_not_go_together_is_a_clear_error(small, settings, message):
    config = read_config(str(small))
    for key, value in settings.items():
        section, name = key.split(".")
        config[section][name] = value
    with pytest.raises(JaxftError, match=message):
        make_plan(config)


def test_a_teacher_for_other_channels_and_importances_that_are_none_are_clear_errors(small, small_run, tmp_path):
    config = _distilling(small, small_run)
    config.model.in_channels = 1
    with pytest.raises(JaxftError, match="the teacher sees 3 channels, the network 1"):
        read_fixed(config, resolve("distillation"))
    save_safetensors(tmp_path / "bad.safetensors", {"head/kernel": np.array([1.0, -1.0], np.float32)}, {})
    with pytest.raises(JaxftError, match="importance of 'head/kernel' is not finite, or negative"):
        read_importance(tmp_path / "bad.safetensors")


@pytest.mark.parametrize(
    ("path", "shape", "message"),
    [
        ("head/kernle", (64, 3), "names 'head/kernle' .did you mean 'head/kernel'"),
        ("head/kernel", (3, 64), r"has \[3, 64\] for 'head/kernel', and the network \[64, 3\]"),
    ],
)
def test_importances_of_another_network_are_a_clear_error(small, tmp_path, path, shape, message):
    save_safetensors(tmp_path / "fisher.safetensors", {path: np.ones(shape, np.float32)}, {})
    with pytest.raises(JaxftError, match=message):
        make_plan(_near(small, tmp_path / "fisher.safetensors"), weights=False)
