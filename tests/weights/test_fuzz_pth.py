"""A short run of `scripts/fuzz_pth.py`; the long one is kept in docs/safe-loading.json."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mutants
import pytest

from jaxft.weights import read

ROOT = Path(__file__).parent.parent.parent
COUNT = 3_000


@pytest.fixture(scope="module")
def found(fixtures):
    return mutants.bases(fixtures)


def fuzz(*arguments, code=None):
    command = [sys.executable, *(["-c", code] if code else [str(ROOT / "scripts" / "fuzz_pth.py")]), *map(str, arguments)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "scripts"), str(Path(__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_no_mutant_of_a_short_run_escapes(tmp_path):
    result = tmp_path / "result.json"
    done = fuzz("--count", COUNT, "--seed", 7, "--keep", tmp_path / "found", "--result", result)
    assert done.returncode == 0, done.stdout + done.stderr
    run = json.loads(result.read_text())
    assert run["findings"] == []
    assert run["read"] + run["refused"] == run["count"] == COUNT
    assert run["share_that_reached_the_pickle_machine"] > 0.7
    assert set(run["kinds"]) == set(mutants.KINDS)
    assert not (tmp_path / "found").exists()


def test_what_breaks_a_limit_is_found_and_kept_and_repeated(tmp_path):
    code = "import watched; watched.SECONDS = -1; import fuzz_pth; fuzz_pth.main()"
    done = fuzz("--only", 5, "--seed", 7, "--keep", tmp_path, code=code)
    assert done.returncode == 1, done.stderr
    assert f"FOUND {tmp_path / 'seed7_5.pth'}" in done.stdout
    assert "--seed 7 --only 5" in done.stdout
    kept = (tmp_path / "seed7_5.pth").read_bytes()
    again = fuzz("--only", 5, "--seed", 7, "--keep", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "again" / "seed7_5.pth").read_bytes() == kept


def test_mutants_are_reproducible_and_differ_from_each_other_and_from_what_they_were_made_from(found):
    made = [mutants.mutant(found, 1, number) for number in range(300)]
    assert made == [mutants.mutant(found, 1, number) for number in range(300)]
    assert len({data for data, _, _ in made}) > 290
    assert all(data != base.whole for data, _, base in made)


def test_a_base_put_together_again_without_a_change_reads_like_the_file_it_was(found, fixtures, tmp_path, expected):
    for base in found:
        if base.name in expected:
            (tmp_path / "x.pth").write_bytes(base.whole)
            want = read(fixtures / f"{base.name}.pth")
            assert {name: value.tobytes() for name, value in read(tmp_path / "x.pth").items()} == {
                name: value.tobytes() for name, value in want.items()
            }


def test_the_long_run_that_is_kept_is_of_a_million_mutants_and_found_nothing():
    run = json.loads((ROOT / "docs" / "safe-loading.json").read_text())
    assert run["count"] >= 1_000_000
    assert run["findings"] == []
    assert set(run["kinds"]) == set(mutants.KINDS)
