"""The scripts of `benchmarks/` import each other by name, as they do where they are run."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

#: A worker whose works take as long as they say: `seconds` a call, in turn. It writes each turn to the file `log`.
MADE_UP = f"""
import itertools, os, sys
sys.path.insert(0, {str(BENCHMARKS)!r})
from serve import Missing, Prepared, serve

alive = set()

def prepare(work):
    print("a library that talks")
    variant = work["variant"]
    if variant == "missing":
        raise Missing("there is no such variant")
    if variant == "failing":
        raise ValueError("this one cannot be compiled")
    if variant == "dying":
        print("out of luck", file=sys.stderr, flush=True)
        os._exit(3)
    seconds = itertools.cycle(work["seconds"])

    def run(calls):
        with open(work["log"], "a") as log:
            log.write(variant + "\\n")
        return calls * next(seconds)

    return Prepared(run, 10, work.get("flops"), 0.5)

serve(prepare, versions=lambda: {{"made-up": "1"}}, peak=lambda: 1e9)
"""


@pytest.fixture
def made_up(tmp_path):
    """The script of a worker with made-up times; see `MADE_UP`."""
    script = tmp_path / "made_up_worker.py"
    script.write_text(MADE_UP)
    return str(script)
