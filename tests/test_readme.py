"""What the first screen of README.md shows, run as it stands there but for its sizes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from compiled import older_generator

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture(scope="module")
def blocks():
    first_steps = README.read_text().split("## First steps\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", first_steps, re.DOTALL)


def test_each_block_is_under_fifteen_lines(blocks):
    assert len(blocks) == 4
    assert all(len(block.splitlines()) < 15 for block in blocks)


def test_the_first_screen_runs(blocks, photos, tmp_path):
    (tmp_path / "photos").symlink_to(photos)
    finetune, loss, with_loss, lora = (block.replace("epochs=5", "epochs=1, size=32, batch_size=8") for block in blocks)
    (tmp_path / "poly.py").write_text(loss)
    check = "print(sorted(tuned.class_names), tuned.model.adapter.name)"
    environment = {**os.environ, **older_generator(), "JAX_NUM_CPU_DEVICES": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    said = []
    for number, program in enumerate((finetune, with_loss, f"{lora}{check}")):
        (tmp_path / f"program{number}.py").write_text(program)
        command = [sys.executable, f"program{number}.py"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    accuracy, low, high = map(float, re.findall(r"[0-9.]+", said[0].splitlines()[-1])[:3])
    assert 0 <= low <= accuracy <= high <= 1
    assert '"name": "poly:poly1"' in (tmp_path / "runs" / "poly" / "config.json").read_text()
    assert said[2].splitlines()[-1] == "['circle', 'cross', 'dots'] lora"
    assert 0 < (tmp_path / "photos.safetensors").stat().st_size < 4_000_000
