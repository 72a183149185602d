"""From pictures without labels to a fine-tuned network: the runs, what they leave, and what goes on from them."""

import csv
import json
import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from small_run import write_small_recipe

from jaxft import tree
from jaxft.cli.config import read_config
from jaxft.cli.main import main
from jaxft.config import phase
from jaxft.data import view_batches
from jaxft.inputs import evaluate_pictures, picture_eval_step
from jaxft.inspect import inspect_config
from jaxft.losses import simclr
from jaxft.parallel import make_mesh
from jaxft.plan import make_plan
from jaxft.range_test import lr_find
from jaxft.run import train
from jaxft.workdir import load_run

pytestmark = pytest.mark.usefixtures("quick_compiles")

SETTINGS = {
    "simclr": {
        "input.views": 2,
        "input.augment": "random_resized_crop(0.5), random_flip, random_color",
        "model.head": "mlp",
        "model.outputs": 16,
    },
    "mae": {
        "model.name": "tiny_nets:tiny_vit",
        "model.size": 32,
        "model.head": "mae:1x32",
        "loss.name": "masked_autoencoder",
        "optim.name": "adamw",
    },
}
LR = {"simclr": 0.05, "mae": 3e-3}


@pytest.fixture(scope="module")
def small(made_once, photos):
    return made_once("ssl_recipe", lambda folder: write_small_recipe(folder / "small.py", photos)) / "small.py"


def _config(small, method):
    config = read_config(str(small))
    config.data.task = "unlabelled"
    config.train.monitor, config.train.mode = "loss", "min"
    config.train.eval_every = config.train.log_every = "6 steps"
    config.input.eval_batch_size = 16
    for key, value in SETTINGS[method].items():
        section, name = key.split(".")
        config[section][name] = value
    config.phases.phase1 = phase(train="full", length="18 steps", lr=LR[method])
    return config


@pytest.fixture(scope="module", params=["simclr", "mae"])
def pretrained(request, made_once, small):
    """(config, workdir) of a finished run."""
    config = _config(small, request.param)
    one = jax.devices()[:1]

    def make(folder):
        from jaxft import run

        mesh, run.make_mesh = run.make_mesh, lambda layout: make_mesh(layout, one)
        try:
            train(config, folder / "run")
        finally:
            run.make_mesh = mesh

    return config, made_once(f"ssl_{request.param}", make) / "run"


def test_it_learns_and_reports_its_loss_alone(pretrained):
    config, workdir = pretrained
    report = json.loads((workdir / "report.json").read_text())
    assert report["after"]["figures"].keys() == {"loss"}
    assert report["after"]["intervals"] == {}
    assert report["after"]["figures"]["loss"] < report["before"]["figures"]["loss"]
    assert "loss" in (workdir / "report.md").read_text()
    assert not (workdir / "samples.png").exists()
    plan = make_plan(config, manifest=workdir / "splits.json", weights=False)
    with (workdir / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["name"] for row in rows) == sorted(plan.splits.test.names)
    mean = np.mean([float(row["loss"]) for row in rows])
    np.testing.assert_allclose(mean, report["after"]["figures"]["loss"], rtol=1e-4)


@pytest.mark.usefixtures("one_device")
def test_a_fine_tune_takes_all_but_the_head(pretrained, small, tmp_path):
    ssl, workdir = pretrained
    config = read_config(str(small))
    config.model.name, config.model.size = ssl.model.name, ssl.model.size
    config.model.pretrained = f"run:{workdir}"
    config.phases.phase1 = phase(train="head", length="2 steps", lr=1e-2)
    plan, before = make_plan(config), load_run(workdir)
    ours, theirs = tree.flatten(plan.params), tree.flatten(before.params)
    encoder = [path for path in ours if plan.model.stage_of(path) != "head"]
    assert {*encoder} == {path for path in theirs if before.model.stage_of(path) != "head"}
    for path in encoder:
        np.testing.assert_array_equal(ours[path], theirs[path], err_msg=path)
    jax.tree.map(np.testing.assert_array_equal, dict(plan.model_state), jax.device_get(dict(before.model_state)))
    assert plan.model.num_classes == 3
    assert train(config, tmp_path / "tuned").after.figures.keys() >= {"loss", "accuracy"}
    tuned = tree.flatten(load_run(tmp_path / "tuned").params)
    for path in encoder:
        np.testing.assert_array_equal(tuned[path], theirs[path], err_msg=path)


def test_a_run_goes_on_with_more_pictures_head_and_all(pretrained):
    config, workdir = pretrained
    more = config.copy_and_resolve_references()
    more.model.pretrained = f"run:{workdir}"
    jax.tree.map(np.testing.assert_array_equal, dict(make_plan(more).params), jax.device_get(dict(load_run(workdir).params)))


def test_what_needs_classes_says_to_fine_tune_first(pretrained, small, photos, tmp_path, capsys):
    _, workdir = pretrained
    picture = str(next((photos / "circle").iterdir()))
    for command in (["predict", f"--workdir={workdir}", picture], ["eval", f"--workdir={workdir}"]):
        assert main(command) != 0
        assert "fine-tune from it first, with config.model.pretrained='run:WORKDIR'" in capsys.readouterr().err
    assert main(["select", f"--workdir={workdir}", "--count=1", f"--output={tmp_path / 'x.csv'}", str(photos)]) != 0
    assert "the run's task is 'unlabelled'" in capsys.readouterr().err


def test_inspect_and_the_range_test_work_without_labels(pretrained):
    config, _ = pretrained
    text = inspect_config(config)
    assert "train" in text
    assert "classes" not in text.splitlines()[0]
    assert len(lr_find(config, steps=20).losses) > 3


def _simclr_of_a_split(plan, config, params, model_state, split):
    """The mean loss over the rows of each batch of views, written out."""
    batches = view_batches(
        split, plan.model.preprocessing, batch_size=16, views=2, augment=plan.augment, seed=config.seed, threads=1
    )
    losses = []
    for batch in batches:
        shown = plan.augment_batch(batch)
        kept = np.flatnonzero(batch["mask"])
        outputs, _ = plan.apply(params, model_state, shown["image"][kept], train=False, rng=None)
        losses += np.asarray(simclr(outputs, {"index": batch["index"][kept]})).tolist()
    return np.mean(losses)


@pytest.mark.parametrize("devices", [1, 8])
def test_an_evaluation_is_of_the_first_looks_of_each_example_on_any_number_of_devices(small, devices):
    config = _config(small, "simclr")
    config.data.val_fraction = 0.4  # 12 examples: a batch of 8, and one of 4 and padding
    plan = make_plan(config)
    params, model_state = jax.jit(plan.model.init)(jax.random.key(0))
    mesh = make_mesh(f"{devices}x1x1", jax.devices()[:devices])
    step = jax.jit(picture_eval_step(plan))
    found = evaluate_pictures(step, params, model_state, plan.val, plan, config, mesh)
    again = evaluate_pictures(step, params, model_state, plan.val, plan, config, mesh)
    assert found.metrics == again.metrics
    assert (found.count, found.losses.shape, found.logits.shape) == (12, (12,), (12, 0))
    expected = _simclr_of_a_split(plan, config, params, model_state, plan.val)
    np.testing.assert_allclose(found.metrics["loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(found.losses.mean(), expected, rtol=1e-5)


@pytest.mark.slow
def test_two_processes_do_to_the_bit_what_one_does_with_their_devices(small, tmp_path):
    """The views of an example lie on two devices, here of two processes."""
    recipe = tmp_path / "views.py"
    recipe.write_text(
        f"from jaxft.cli.config import read_config\n\ndef get_config(arg=''):\n    config = read_config({str(small)!r})\n"
        "    config.data.task, config.input.views = 'unlabelled', 2\n"
        "    config.input.augment = 'random_resized_crop(0.5), random_flip'\n"
        "    config.train.monitor, config.train.mode, config.train.log_every = 'loss', 'min', '1 steps'\n"
        "    config.phases.phase1.length = '4 steps'\n"
        "    return config\n"
    )

    def start(workdir, devices, **variables):
        command = [sys.executable, "-m", "jaxft", "train", f"--config={recipe}", f"--workdir={tmp_path / workdir}"]
        quick = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
        return subprocess.Popen(command, env={**os.environ, **quick, **variables})

    assert start("one", 2).wait(240) == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    variables = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    both = [start("two", 1, **variables, JAX_PROCESS_ID=str(number)) for number in range(2)]
    assert [process.wait(240) for process in both] == [0, 0]
    for file in ("metrics.jsonl", "predictions.csv"):
        assert (tmp_path / "two" / file).read_bytes() == (tmp_path / "one" / file).read_bytes()
