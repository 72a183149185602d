"""Brings faults into real runs, one at a time, and records what is said, the exit code and what survives.

Each fault is brought in from outside (signals, mounts, limits, changed files) or through a user's loss, never into the
library; the run is `python -m jaxft train` in a process of its own, on a folder of tiny pictures. Then the fault is taken
away and the same command given again; what it ends with is compared with a run that nothing happened to: parameters,
optimizer state, statistics, averages, clock, and the bytes of the metric log. What is expected of each fault stands with it in
`scripts/faults/`; a fault that this machine cannot have (mounts need root) is recorded as skipped.

  python scripts/fault_campaign.py --result docs/faults.json --page docs/reliability.md
  python scripts/fault_campaign.py --only "nan_*" --result docs/faults.json       # the others' records are kept
  python scripts/fault_campaign.py --nothing 200 --lanes 3 --keep found           # 200 runs that nothing happens to
"""

import argparse
import concurrent.futures
import contextlib
import datetime
import fnmatch
import importlib
import importlib.metadata
import itertools
import json
import math
import os
import pathlib
import platform
import re
import shutil
import sys
import tempfile
import threading
import time
import traceback

os.environ.setdefault("JAX_PLATFORMS", "cpu")

ROOT = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import jax  # noqa: E402
import numpy as np  # noqa: E402
from faults.page import with_table  # noqa: E402
from faults.stage import Stage  # noqa: E402
from faults.table import EQUAL, FAULTS, FINITE, ITSELF, LOG_LOST, NOTHING, UNTOUCHED  # noqa: E402
from kill_campaign import contents  # noqa: E402

from jaxft.workdir import load_run  # noqa: E402

_reading = threading.Lock()

for part in ("disk", "state", "data", "processes"):  # in this order they stand in the table
    importlib.import_module(f"faults.{part}")


def contents_of(stage):
    """Hashes of all that the run has; {} where it has no checkpoint."""
    with _reading:
        return contents(stage.workdir) if stage.newest_whole() else {}


def unbroken(base):
    """Runs that nothing happens to, of one process and of two, and one that is stopped half way; what those two end with."""
    with contextlib.ExitStack() as cleanup:
        stage, begun, two = (Stage(base / name, base, cleanup) for name in ("unbroken", "begun", "two"))
        ended = stage.train()
        life, pair = begun.held(6), two.pair()
        life.process.terminate()
        life.go()
        codes = [ended.code, life.end().code, *(each.end().code for each in pair)]
        if codes != [0, 75, 0, 0]:
            raise RuntimeError(f"without a fault the runs end with {codes}:\n" + "\n".join([*ended.lines, *pair[0].lines]))
        return {1: contents_of(stage), 2: contents_of(two)}


def tried(fault, number, base, expected, keep):
    """One fault; returns its record. Where it is not what is expected, its folder is copied into `keep`, where one is given."""
    record = {"fault": fault.name, "date": datetime.datetime.now(datetime.UTC).date().isoformat()}
    if not fault.needs():
        return {**record, "skipped": f"this machine lacks what it needs ({fault.needs.__name__})"}
    with contextlib.ExitStack() as cleanup:
        stage = Stage(base / f"{number}-{fault.inject.__name__}", base, cleanup)
        cleanup.callback(shutil.rmtree, stage.folder, ignore_errors=True)
        ended, mend = fault.inject(stage)
        lines = [stage.shown(line) for line in ended.lines]
        spoken = [line for line in lines if fault.says and fault.says in line]
        record |= {"message": (spoken or [line for line in lines if line][-1:] or [""])[0], "code": ended.code}
        record |= {"before": stage.before, "kept": stage.newest_whole()}
        if fault.then in (EQUAL, LOG_LOST) and ended.code:
            if mend is not None:
                mend()
            lives = [stage.start()] if fault.processes == 1 else stage.pair()
            again = [life.end() for life in lives]
            record |= {"again": [end.code for end in again], "resumed": resumed(again[0])}
            if any(record["again"]):
                print("\n".join(again[0].lines[-15:]), flush=True)
        elif resumed(ended):
            record["resumed"] = resumed(ended)
        if fault.then == UNTOUCHED:
            record["end"] = "untouched" if stage.untouched else "changed"
        elif fault.then == FINITE:
            record["end"] = "finite" if finite(stage) else "not finite"
        else:
            record["end"] = verdict(contents_of(stage), expected[fault.processes])
        problems = differences(fault, record, spoken, lines)
        if problems:
            print(f"--- {fault.name}: {'; '.join(problems)}\n" + "\n".join(lines[-60:]), flush=True)
            for folder in (stage.folder, base / "unbroken", base / "two") if keep else ():
                shutil.copytree(folder, keep / folder.name, dirs_exist_ok=True)
        return {**record, "as_expected": not problems}


def resumed(ended):
    """The step that a run went on from; 0 where it began anew."""
    found = [re.match(r"resuming at step (\d+)", line) for line in ended.lines]
    return next((int(match[1]) for match in found if match), 0)


def finite(stage):
    """Whether the network that a run leaves, and all that it logged, is finite."""
    logged = [json.loads(line) for line in (stage.workdir / "metrics.jsonl").read_text().splitlines()]
    numbers = [value for line in logged for value in line.values() if isinstance(value, float)]
    with _reading:
        arrays = jax.tree.leaves(load_run(stage.workdir).params)
        return all(map(math.isfinite, numbers)) and all(bool(np.isfinite(array).all()) for array in arrays)


def verdict(found, expected):
    """How the end of a run differs from that of the unbroken one."""
    if found == expected:
        return "bit-equal"
    if not found:
        return "nothing"
    other = [name for name, value in expected.items() if found.get(name) != value]
    return f"other: {', '.join(other)}"


def differences(fault, record, spoken, lines):
    """What is not as expected."""
    ends = {EQUAL: "bit-equal", ITSELF: "bit-equal", UNTOUCHED: "untouched", FINITE: "finite", LOG_LOST: "other: log"}
    wanted = ends[fault.then]
    return [
        *([] if record["code"] == fault.code else [f"exit code {record['code']}, not {fault.code}"]),
        *([] if spoken or not fault.says else [f"'{fault.says}' was not said"]),
        *(["a traceback"] if not fault.traceback and any(line.startswith("Traceback") for line in lines) else []),
        *([] if not any(record.get("again", [])) else [f"given again: {record['again']}"]),
        *([] if record["end"] == wanted else [f"the end is {record['end']}"]),
    ]


def campaign(base, chosen, lanes, keep):
    begun = time.monotonic()
    expected = unbroken(base)

    def guarded(number, fault):
        try:
            record = tried(fault, number, base, expected, keep)
        except Exception:  # whatever a fault's own code meets is a finding, and the others go on
            traceback.print_exc()
            record = {"fault": fault.name, "message": "the fault could not be brought in", "as_expected": False}
        print(json.dumps(record), flush=True)
        return record

    with concurrent.futures.ThreadPoolExecutor(lanes) as pool:
        records = list(pool.map(guarded, itertools.count(), chosen))
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("jax", "orbax-checkpoint")},
        "minutes": round((time.monotonic() - begun) / 60, 1),
        "faults": records,
    }


def merged(kept, new):
    """The records of another time with the new ones in their places, in the order of the table."""
    records = {record["fault"]: record for record in (*kept, *new)}
    return [records[fault.name] for fault in FAULTS if fault.name in records]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=["*"], help="globs over the names of the functions that bring faults in")
    parser.add_argument("--nothing", type=int, metavar="N", help="instead of faults N runs that nothing happens to; no record")
    parser.add_argument("--lanes", type=int, default=2, help="faults at a time")
    parser.add_argument("--result", type=pathlib.Path, help="a JSON file for the record")
    parser.add_argument("--keep", type=pathlib.Path, help="a folder for what those leave that are not as expected")
    parser.add_argument("--page", type=pathlib.Path, help="a page whose table is written anew from the record")
    options = parser.parse_args()
    if options.nothing and (options.result or options.page):
        parser.error("--nothing makes no record")
    chosen = [NOTHING] * (options.nothing or 0) or [
        fault for fault in FAULTS if any(fnmatch.fnmatch(fault.inject.__name__, glob) for glob in options.only)
    ]
    with tempfile.TemporaryDirectory(prefix="jaxft-faults-") as folder:
        found = campaign(pathlib.Path(folder), chosen, options.lanes, options.keep)
    if options.result:
        if len(chosen) < len(FAULTS) and options.result.exists():
            found["faults"] = merged(json.loads(options.result.read_text())["faults"], found["faults"])
        options.result.write_text(json.dumps(found, indent=1) + "\n")
    if options.page:
        options.page.write_text(with_table(options.page.read_text(), found))
    wrong = [record["fault"] for record in found["faults"] if not record.get("as_expected", True)]
    print(f"{len(found['faults'])} tried, {found['minutes']} minutes; not as expected: {wrong or 'none'}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
