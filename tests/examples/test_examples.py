import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
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
