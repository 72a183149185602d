"""The notebooks' cells, run in order as a program of its own, with smaller sizes and without what installs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from compiled import older_generator

NOTEBOOKS = Path(__file__).parents[2] / "examples" / "notebooks"

#: What stands in the cell tagged `parameters`, for two cores and a minute.
SMALLER = {
    "first_finetune.ipynb": {"PICTURES": 30, "SIZE": 32, "BATCH": 32, "HEAD_EPOCHS": 4, "EPOCHS": 0},
    "custom_loss.ipynb": {"WRONG": 0.4, "TRAIN": 20, "VAL": 5, "SIZE": 32, "EPOCHS": 8},
}

RUNNER = """
import json, sys
cells, smaller = json.load(sys.stdin)
names = {}
for number, cell in enumerate(cells):
    exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    if "parameters" in cell["metadata"].get("tags", ()):
        assert smaller.keys() == {name for name in names if name.isupper()}, "the test sets other parameters"
        names.update(smaller)
"""


def _cells(name):
    return json.loads((NOTEBOOKS / name).read_text())["cells"]


def _run(name, folder):
    cells = [cell for cell in _cells(name) if cell["cell_type"] == "code" and "install" not in cell["metadata"].get("tags", ())]
    variables = {**os.environ, **older_generator(), "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, "-c", RUNNER], input=json.dumps([cells, SMALLER[name]]),
        capture_output=True, text=True, cwd=folder, env=variables, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_notebook_is_here():
    assert {path.name for path in NOTEBOOKS.glob("*.ipynb")} == set(SMALLER)


@pytest.mark.parametrize("name", SMALLER)
def test_a_notebook_is_nbformat_4_small_and_without_outputs(name):
    text = (NOTEBOOKS / name).read_text()
    assert len(text) < 20_000
    notebook = json.loads(text)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    cells = notebook["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", cell["id"]) for cell in cells)
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell.keys() == {"cell_type", "execution_count", "id", "metadata", "outputs", "source"} for cell in code)
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert all(line.endswith("\n") for cell in cells for line in cell["source"][:-1])
    assert [cell["metadata"].get("tags") for cell in code[:2]] == [["install"], ["parameters"]]
    assert "%pip install" in "".join(code[0]["source"])
    assert "jax.devices()" in text


def test_the_first_notebook_learns_digits(tmp_path):
    output = _run("first_finetune.ipynb", tmp_path)
    before, after = (float(value) for value in re.findall(r"(?:before|after): test accuracy ([\d.]+)%", output))
    assert before < 30 < 60 < after
    assert "CpuDevice" in output or "Device" in output


def test_the_loss_of_the_second_notebook_is_what_its_run_was_trained_by(tmp_path):
    output = _run("custom_loss.ipynb", tmp_path)
    found = {name: float(value) for name, value in re.findall(r"([a-z-]+): test accuracy ([\d.]+)%", output)}
    assert found.keys() == {"cross-entropy", "generalised"}
    assert min(found.values()) > 30
    config = json.loads((tmp_path / "runs" / "generalised" / "config.json").read_text())
    assert config["loss"]["name"] == "my_losses:generalized_cross_entropy"
    judged = [json.loads(line) for line in (tmp_path / "runs" / "generalised" / "metrics.jsonl").read_text().splitlines()]
    assert all(line["loss"] < 1 / 0.7 for line in judged)  # the loss is below 1 / q, which cross-entropy is not held to
