"""For every method the same: what is frozen stays to the bit, a run that was stopped goes on to the bit, and eight devices do
what one does."""

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxft import tree
from jaxft.cli.config import read_config
from jaxft.config import phase
from jaxft.explain.step import abstract_arguments
from jaxft.optim.methods import METHODS as OPTIMIZERS
from jaxft.parallel import make_mesh, put_batch
from jaxft.plan import make_plan
from jaxft.run import train
from jaxft.states import enter, first_weights, jit_train_step
from jaxft.tuning import trains
from jaxft.weights import save_safetensors
from jaxft.workdir import load_run

pytestmark = pytest.mark.usefixtures("quick_compiles")

#: Steps of the two phases, and where the run is stopped: in the second one.
FIRST, STEPS, STOP = 1, 4, 3
VIT = {"model.name": "tiny_nets:tiny_vit", "model.size": 32}
PART = "from:stage3"
#: Stands for the workdir of a run.
TEACHER = "teacher"
#: Stands for a file that says how much each parameter matters.
IMPORTANCE = "importance.safetensors"
UNLABELLED = {
    "loss.name": "fixmatch",
    "loss.options": {"threshold": 0.35},  # of three classes: some answers are above it and some are not
    "data.per_class": 3,
    "data.unlabelled": "rest",
    "input.unlabelled_ratio": 2,
    "input.augment": "random_flip",
    "input.strong_augment": "random_resized_crop(0.5), rand_augment(2, 10), random_erasing(1.0)",
}
FREE = {"optim.schedule": "constant"}
LOSS = {"train.monitor": "loss", "train.mode": "min"}
VIEWS = {**LOSS, "input.views": 2, "input.augment": "random_resized_crop(0.5), random_flip, random_color", "model.outputs": 6}
#: name -> (what trains in the second phase, and after " - " what does not; keys of the config).
METHODS = {
    **{term: (term, {}) for term in ("head", "full", PART, "norms+head", "biases+head")},
    "norms+head, statistics frozen": ("norms+head - statistics", {}),
    **{f"{term}+head": (f"{term}+head", {}) for term in ("lora", "dora", "ssf")},
    "bottleneck+head": ("bottleneck+head", {"adapter.options": {"modules": "stage*"}}),
    "lora+head of a vit": ("lora+head", VIT),
    "prompt+head": ("prompt+head", VIT),
    **{
        f"{name}": (PART, {"optim.name": name, "optim.weight_decay": 0.01, **(FREE if method.free else {})})
        for name, method in OPTIMIZERS.items()
    },
    "layer_decay": (PART, {"optim.layer_decay": 0.5, "optim.stage_lr": "stage3:0.1"}),
    "onecycle": (PART, {"optim.schedule": "onecycle", "optim.schedule_options": {"cycle_momentum": True}}),
    "plateau": (PART, {"optim.schedule": "plateau", "optim.schedule_options": {"patience": 0, "factor": 0.5}}),
    "ema": (PART, {"train.ema_decay": 0.9, "train.ema_warmup_power": 0.7}),
    "swa": (PART, {"train.swa_start": "1 steps", "train.swa_every": "1 steps"}),
    "sam": (PART, {"train.sam_rho": 0.05}),
    "asam with accumulation": (PART, {"train.sam_rho": 0.5, "train.sam_adaptive": True, "train.accum_steps": 2}),
    "restore_best": (PART, {"train.restore_best": True}),
    "distillation": (PART, {"loss.name": "distillation", "teacher.run": TEACHER}),
    "feature_distillation": (PART, {"loss.name": "feature_distillation", "teacher.run": TEACHER}),
    "ewc": (PART, {"loss.name": "ewc", "anchor.importance": IMPORTANCE, "loss.options": {"strength": 10.0}}),
    "simclr with accumulation": (
        PART,
        {**VIEWS, "data.task": "unlabelled", "model.head": "mlp", "train.accum_steps": 2},
    ),
    "dino": (
        PART,
        {**VIEWS, "data.task": "unlabelled", "loss.name": "dino", "model.head": "cosine:8", "train.ema_decay": 0.9},
    ),
    "mae": (
        PART,
        {**VIT, **LOSS, "data.task": "unlabelled", "loss.name": "masked_autoencoder", "model.head": "mae:1x32"},
    ),
    "supervised_contrastive": (PART, {**VIEWS, "loss.name": "supervised_contrastive", "model.head": "mlp"}),
    "fixmatch with accumulation": (PART, {**UNLABELLED, "train.accum_steps": 2}),
    "mixed heads": ("head", {"model.head": "linear+mlp+cosine:8"}),
    "fresh moments": (PART, {"optim.keep_moments": False, "optim.name": "adamw"}),
}


#: The rows that every run of the tests has, one for each kind of state and of input; the others are marked slow.
QUICK = (
    "full",
    "norms+head, statistics frozen",
    "lora+head",
    "prompt+head",
    "schedule_free_adamw",
    "asam with accumulation",
    "plateau",
    "distillation",
    "dino",
    "fixmatch with accumulation",
)
ROWS = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]


@pytest.fixture(scope="module")
def beside(made_once, small_run):
    """What the placeholders stand for."""

    def make(folder):
        params = tree.flatten(load_run(small_run).params)
        save_safetensors(folder / IMPORTANCE, {path: np.abs(leaf) for path, leaf in params.items()}, {})

    return {TEACHER: str(small_run), IMPORTANCE: str(made_once("methods", make) / IMPORTANCE)}


def _config(small, beside, method):
    terms, settings = METHODS[method]
    term, _, frozen = terms.partition(" - ")
    settings = {key: beside[value] if value in (TEACHER, IMPORTANCE) else value for key, value in settings.items()}
    config = read_config(str(small))
    config.input.augment = "none"
    config.train.eval_every = config.train.log_every = "1 steps"
    for key, value in settings.items():
        section, name = key.split(".")
        config[section][name] = value
    head = {"schedule": config.optim.schedule} if config.optim.schedule == "constant" else {}
    lr = {"adafactor": 1e-2, "lars": 1.0}.get(config.optim.name, 1e-3)
    config.phases = {
        "phase1": phase(train="head", length=f"{FIRST} steps", lr=lr, **head),
        "phase2": phase(train=term, freeze=frozen, length=f"{STEPS - FIRST} steps", lr=lr),
    }
    return config


def _arrays(workdir):
    """All arrays of the newest checkpoint, by path."""
    folder = max((workdir / "checkpoints").iterdir(), key=lambda path: int(path.name) if path.name.isdigit() else -1)
    arrays = {}
    for item in ("clock", "params", "model_state", "opt_state", "ema"):
        if (folder / item).exists():
            with ocp.PyTreeCheckpointer() as reader:
                restored = reader.restore((folder / item).absolute())
            for path, leaf in jax.tree_util.tree_flatten_with_path(restored)[0]:
                arrays[item + jax.tree_util.keystr(path)] = np.asarray(leaf)
    return arrays


@pytest.mark.usefixtures("one_device")
@pytest.mark.parametrize("method", ROWS)
def test_what_is_frozen_stays_and_a_stopped_run_goes_on_bit_for_bit(small, beside, method, tmp_path):
    config = _config(small, beside, method)
    assert train(config, tmp_path / "unbroken").status == "finished"
    stopped = train(config, tmp_path / "broken", go_on=lambda step, figures: step != STOP)
    assert (stopped.status, stopped.step) == ("interrupted", STOP)
    assert train(config, tmp_path / "broken").status == "finished"
    unbroken, broken = _arrays(tmp_path / "unbroken"), _arrays(tmp_path / "broken")
    assert unbroken.keys() == broken.keys()
    for path, value in unbroken.items():
        np.testing.assert_array_equal(value, broken[path], err_msg=path)
    assert (tmp_path / "unbroken" / "metrics.jsonl").read_bytes() == (tmp_path / "broken" / "metrics.jsonl").read_bytes()

    plan = make_plan(config)
    params, model_state = jax.jit(plan.model.init)(jax.random.key(config.seed))
    masks = [tree.flatten(one.mask) for one in plan.phases]
    modes = [trains(one.mask) for one in plan.phases if not one.statistics_stay]
    trained = {path for path in masks[0] if any(mask[path] for mask in masks)}
    moved = 0
    for path, leaf in tree.flatten(params).items():
        now = unbroken["params" + "".join(f"['{part}']" for part in path.split("/"))]
        same = np.array_equal(now, leaf)
        assert same or path in trained, path
        moved += not same
    assert moved > 0
    tuned = load_run(tmp_path / "unbroken")
    statistics = tree.flatten(model_state.get("batch_stats", {}))
    for path, leaf in statistics.items():
        module = path.rpartition("/")[0]
        if not any(mode is True or mode(module) for mode in modes):
            np.testing.assert_array_equal(tree.flatten(tuned.model_state["batch_stats"])[path], leaf, err_msg=path)


def _batch(plan, one, config, mesh, number):
    """A batch with all keys that those of a run have, its pictures and labels drawn."""
    rng = np.random.default_rng(number)
    _, shapes = abstract_arguments(plan, one, config, mesh, place=False)
    batch = {}
    for key, leaf in shapes.items():
        examples = len(leaf) // (config.input.views if key in ("index", "shown") else 1)
        if key.endswith("index"):
            batch[key] = np.arange(len(leaf), dtype=np.int32) % examples
        elif key.endswith("shown"):
            batch[key] = np.arange(len(leaf), dtype=np.int32) // examples
        elif key == "mask":
            batch[key] = np.ones(leaf.shape, np.float32)
        else:
            batch[key] = rng.integers(0, 3 if key == "label" else 256, leaf.shape, leaf.dtype)
    return batch


@pytest.mark.parametrize("method", ROWS)
def test_eight_devices_do_what_one_does(small, beside, method):
    config = _config(small, beside, method)
    found = []
    for layout, devices in (("1x1x1", 1), ("2x2x2", 8)):
        mesh = make_mesh(layout, jax.devices()[:devices])
        plan = make_plan(config)
        one = plan.phases[1]
        state = enter(plan, one, config, mesh, *first_weights(plan, one, config, mesh), FIRST)
        step = jit_train_step(plan, one, config, mesh)
        for number in range(2):
            state, _ = step(state, put_batch(_batch(plan, one, config, mesh, number), mesh))
        found.append(jax.device_get(state))
    ours, theirs = (jax.tree.leaves((state.params, state.model_state, state.ema)) for state in found)
    assert len(ours) == len(theirs)
    # All but a few: the sign that lion takes of a gradient near zero may be another.
    differs = [np.abs(a - b) > 1e-5 + 1e-3 * np.abs(b) for a, b in zip(ours, theirs, strict=True)]
    assert sum(part.sum() for part in differs) <= 0.01 * sum(part.size for part in differs)
