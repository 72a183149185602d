"""The layers of docs/architecture.md, held by walking the imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "jaxft"

LAYERS = [
    {"columns", "errors", "files", "heap", "paths", "tree", "typing", "preprocessing", "streams", "ops"},
    {"models", "adapters", "tuning", "optim", "losses", "metrics", "augment", "decoding"},
    {"weights", "data"},
    {"parallel", "train", "tasks", "evaluate", "features", "probe", "verify", "checkpoint", "items", "manifest", "compiling"},
    {
        "averaging",
        "config",
        "phases",
        "plan",
        "semi_supervised",
        "checks",
        "network",
        "representation",
        "result",
        "inputs",
        "run",
        "standing",
        "states",
        "figures",
        "log",
        "owner",
        "progress",
        "range_test",
        "soup",
        "workdir",
        "warm_start",
        "loss_of",
        "continual",
        "fixed",
        "finetuned",
        "adapter_file",
        "predict",
        "probing",
        "active",
        "search",
        "inspect",
        "looks",
        "explain",
        "export",
        "api",
        "bench",
        "report",
        "cli",
        "__init__",
        "__main__",
    },
]

DOORS = {
    "flax.linen": {"models"},
    "orbax": {"checkpoint"},
    "etils": {"paths"},
    "fsspec": {"paths"},
    "tensorflow_datasets": {"data"},
    "grain": {"data"},
    "array_record": {"data"},
    "pyarrow": {"data"},
    "datasets": {"data"},
    "clu": {"metrics", "log", "tuning"},
    "ml_collections": {
        "averaging",
        "range_test",
        "soup",
        "config",
        "continual",
        "cli",
        "fixed",
        "loss_of",
        "run",
        "phases",
        "plan",
        "semi_supervised",
        "checks",
        "network",
        "representation",
        "result",
        "inputs",
        "probing",
        "api",
        "inspect",
        "looks",
        "explain",
        "states",
        "workdir",
        "search",
    },
    "optuna": {"search"},
    "torch": set(),
    "tensorflow": set(),
}


def _part(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


#: Run by another Python, one that has torch; part of no program of ours.
FOREIGN = PACKAGE / "verify" / "torch_side.py"
FILES = sorted(set(PACKAGE.rglob("*.py")) - {FOREIGN})


def _layer(part: str) -> int:
    return next(level for level, parts in enumerate(LAYERS) if part in parts)


def test_every_module_stands_in_a_layer():
    placed = set().union(*LAYERS)
    assert {_part(file) for file in FILES} <= placed


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_module_imports_a_higher_layer(file):
    own = _layer(_part(file))
    for name in _imports(file):
        parts = name.split(".")
        if parts[0] == "jaxft" and len(parts) > 1 and any(parts[1] in layer for layer in LAYERS):
            assert _layer(parts[1]) <= own, f"{_part(file)} imports {name}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_heavy_dependencies_stand_behind_one_door(file):
    for name in _imports(file):
        for dependency, doors in DOORS.items():
            if name == dependency or name.startswith(dependency + "."):
                assert _part(file) in doors, f"{_part(file)} imports {name}"


def test_what_another_python_runs_imports_nothing_of_ours_and_is_imported_by_nobody():
    assert not any(name.split(".")[0] == "jaxft" for name in _imports(FOREIGN))
    assert not any(name.endswith("torch_side") for file in FILES for name in _imports(file))


def test_importing_every_module_loads_neither_torch_nor_tensorflow():
    modules = [".".join(("jaxft", *file.relative_to(PACKAGE).with_suffix("").parts)) for file in FILES]
    modules = [name.removesuffix(".__init__") for name in modules]
    code = (
        f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
        "print([name for name in ('torch', 'tensorflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_a_process_that_decodes_loads_no_jax():
    code = "import sys, jaxft.decoding.worker\nprint([name for name in ('jax', 'flax', 'pyarrow') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
