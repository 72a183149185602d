"""Result files: rows of what was measured, each with all that is needed to judge and repeat it."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alternate import Side, Worker, spread
from workloads import Workload

from jaxft.errors import JaxftError
from jaxft.files import write_whole

RESULTS = Path(__file__).parent / "results"

#: What names a row: a new one takes the place of the old one with the same key.
KEY = ("workload", "batch", "part", "threads")


def merge(path: Path, rows: Sequence[dict[str, Any]], key: Sequence[str] = KEY) -> None:
    """Puts rows into a result file; rows of other workloads, parts and batches stay as they were."""
    kept = {tuple(row[name] for name in key): row for row in [*(load(path) if path.exists() else []), *rows]}
    write_whole(path, json.dumps({"rows": list(kept.values())}, indent=1) + "\n")


def read(path: Path) -> dict[str, Any]:
    """A result file: its rows under `rows`, and what else it keeps.

    Raises:
      JaxftError: there is none, or it is no result file.
    """
    try:
        found = json.loads(path.read_text())
        found["rows"]
        return found
    except FileNotFoundError:
        raise JaxftError(f"there is no result file {path}: run the benchmark that writes it first") from None
    except (ValueError, KeyError, TypeError) as error:
        raise JaxftError(f"{path} is no result file of these benchmarks ({error!r})") from error


def load(path: Path) -> list[dict[str, Any]]:
    """The rows of a result file; raises what `read` raises."""
    return read(path)["rows"]


def percent(share: float) -> str:
    """Two digits of small shares, whole percents of large ones."""
    return f"{100 * share:.0f} %" if share > 0.1 else f"{100 * share:.2g} %"


def conditions(threads: int) -> dict[str, Any]:
    """Where, when and how: processor, system, date and the command that is running, its paths shortened to their last names."""
    command = ["python", f"benchmarks/{Path(sys.argv[0]).name}", *(re.sub(r"(^|=)/.*/", r"\1", text) for text in sys.argv[1:])]
    return {
        "threads": threads,
        "cpu": processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "command": shlex.join(command),
    }


def installed_memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def processor() -> str:
    """The processor's own name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def describe(workers: Mapping[str, Worker]) -> dict[str, dict[str, Any]]:
    """Of each side its versions, its cores and its own f32 matmul peak in FLOP/s.

    No peak is measured before all have answered: a worker that still imports its library takes the others' cores.
    """
    about = {side: worker.ask("about") for side, worker in workers.items()}
    return {side: {**about[side], "peak": worker.ask("peak")["flops"]} for side, worker in workers.items()}


def row(
    workload: Workload,
    part: str,
    sides: Mapping[str, Side],
    ratios: Mapping[str, Sequence[float]],
    about: Mapping[str, Mapping[str, Any]],
    **more: Any,
) -> dict[str, Any]:
    """The row of one contest.

    The FLOP/s of all sides come from one count, the first side's: for the same work, so that they compare as the times do. A
    side's own count stands beside them.
    """
    ours = next(iter(sides.values()))
    flops = None if ours.flops is None else ours.flops / ours.best.images
    return {
        "workload": workload.name,
        "model": workload.model,
        "size": workload.size,
        "batch": workload.batch,
        "classes": workload.classes,
        "part": part,
        "dtype": "float32",
        "flops_per_image": flops,
        "ratio": {side: {**spread(values), "rounds": list(values)} for side, values in ratios.items()},
        "sides": {name: _side(side, about[name], flops) for name, side in sides.items()},
        "note": workload.note,
        **more,
    }


def _side(side: Side, about: Mapping[str, Any], flops: float | None) -> dict[str, Any]:
    best = side.best
    speed = spread(best.speeds)
    rate = None if flops is None else flops * speed["median"]
    return {
        "variant": best.entry.variant,
        "images_per_second": speed,
        "compile_seconds": best.compile_seconds,
        "own_flops_per_image": None if side.flops is None else side.flops / best.images,
        "flops_per_second": rate,
        "peak_flops_per_second": about["peak"],
        "share_of_peak": None if rate is None else rate / about["peak"],
        "variants": {runner.entry.variant: spread(runner.speeds) for runner in side.runners},
        "screened": side.screened,
        "failed": side.failed,
        "versions": about["versions"],
        "cores": about["cores"],
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as text, one line for each rival."""
    lines = [f"{'workload':<26}{'batch':>6} {'part':<6}{'jaxft':>9}  {'rival':<32}{'images/s':>9}{'ratio':>7}  quartiles"]
    for found in rows:
        ours, *_ = found["sides"].values()
        for name, ratio in found["ratio"].items():
            rival = found["sides"][name]
            lines.append(
                f"{found['workload']:<26}{found['batch']:>6} {found['part']:<6}{ours['images_per_second']['median']:>9.1f}  "
                f"{name + ' ' + rival['variant']:<32}{rival['images_per_second']['median']:>9.1f}"
                f"{ratio['median']:>7.2f}  {ratio['q1']:.2f}-{ratio['q3']:.2f}"
            )
    return "\n".join(lines)
