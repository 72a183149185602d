import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import older_generator

from jaxft import losses

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_loop_by_hand_is_under_forty_lines_and_learns(photos):
    loop = EXAMPLES / "custom_loop.py"
    assert len(loop.read_text().splitlines()) < 40
    done = subprocess.run(
        [sys.executable, loop, photos], capture_output=True, text=True, env={**os.environ, **older_generator()}
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("20 {")
    assert lines[-1].startswith("validation {")
    accuracy = float(lines[-1].split("'accuracy': ")[1].split(",")[0].rstrip("}"))
    assert accuracy == 1.0  # three colours


def test_the_loss_of_the_examples_is_found_by_name_and_equals_its_formula(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES.parent))
    loss = losses.resolve("examples.custom_loss:poly1", epsilon=2.0)
    logits, labels = jax.random.normal(jax.random.key(0), (5, 4)), np.array([0, 1, 2, 3, 1])
    p = np.asarray(jax.nn.softmax(logits))[np.arange(5), labels]
    found = loss({"logits": logits}, {"label": jnp.asarray(labels)})
    np.testing.assert_allclose(found, -np.log(p) + 2.0 * (1 - p), rtol=1e-5)


def _environment():
    return {**os.environ, **older_generator(), "PYTHONPATH": os.pathsep.join([str(EXAMPLES.parent), *filter(None, sys.path)])}


def _accuracies(output):
    return [float(found) for found in re.findall(r"'accuracy': ([\d.]+)", output)]


@pytest.mark.parametrize("example", EXAMPLES.glob("*.py"), ids=lambda file: file.name)
def test_an_example_is_short(example):
    assert len(example.read_text().splitlines()) < 60


def test_a_pure_function_is_fine_tuned_head_first_with_the_rest_frozen(photos):
    done = subprocess.run(
        [sys.executable, EXAMPLES / "custom_model.py", photos], capture_output=True, text=True, env=_environment(), check=False
    )
    assert done.returncode == 0, done.stderr
    head, full = done.stdout.splitlines()
    assert head.startswith("head: the first kernel is as it was")
    assert full.startswith("full: the first kernel is trained")
    assert _accuracies(full) == [1.0]  # three colours


def test_an_architecture_and_an_augmentation_of_ones_own_train_from_the_command_line_and_predict(photos, tmp_path):
    """Both as their docstrings say it, but for fewer pixels."""
    jaxft, workdir = [sys.executable, "-m", "jaxft"], f"--workdir={tmp_path / 'run'}"
    recipe = f"--config={EXAMPLES.parent / 'configs' / 'finetune_folder.py'}:path={photos},size=32,train=full"
    settings = (
        "model.name=examples.custom_architecture:small",
        "model.pretrained=",
        "phases.phase1.lr=0.01",
        "log.tensorboard=0",
    )
    own = "--config.input.augment=random_flip, examples.custom_augmentation:random_scanlines(0.4, p=0.5)"
    train = [
        *jaxft,
        "train",
        recipe,
        workdir,
        *(f"--config.{one}" for one in settings),
        own,
        "--config.phases.phase1.length=40 steps",
    ]
    done = subprocess.run(train, capture_output=True, text=True, env=_environment(), check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["after"]["figures"]["accuracy"] == 1.0
    predict = [*jaxft, "predict", workdir, str(photos / "dots" / "000.png"), "--format=csv"]
    done = subprocess.run(predict, capture_output=True, text=True, env=_environment(), check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split(",")[1] == "dots"


def test_the_scanlines_of_the_examples_darken_every_other_row_as_often_as_asked(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES.parent))
    from examples.custom_augmentation import random_scanlines

    image = np.full((6, 4, 3), 200, np.uint8)
    keys = jax.random.split(jax.random.key(0), 400)
    found = np.asarray(jax.vmap(lambda key: random_scanlines(key, image, 0.5, p=0.25))(keys))
    rows = found[:, :, 0, 0]
    changed = (rows != 200).any(1)
    assert 0.18 < changed.mean() < 0.32
    for row in rows[changed]:
        assert (row[::2] == 200).all() or (row[1::2] == 200).all()
        assert 100 <= row.min() < 200
