"""Rows as a table to read and as JSON to keep."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence

from jaxft.bench.bench import Row
from jaxft.bench.machine import device_peak, machine, peak_rss
from jaxft.columns import aligned


def format_table(rows: Sequence[Row]) -> str:
    """The rows as text: one a line, with the columns that any of them has a figure for."""
    columns: dict[str, Callable[[Row], str | None]] = {
        "part": lambda row: row.part,
        "batch": lambda row: str(row.batch),
        "devices": lambda row: str(row.devices) if row.devices else None,
        "ms/step": lambda row: _scaled(row.median, 1e3, ".2f"),
        "(quartiles)": lambda row: f"({_scaled(row.q1, 1e3, '.2f')} to {_scaled(row.q3, 1e3, '.2f')})" if row.q1 else None,
        "images/s": lambda row: _scaled(row.images_per_second, 1, ".1f"),
        "efficiency": lambda row: _scaled(row.efficiency, 1, ".0%"),
        "waiting": lambda row: _scaled(row.wait_share, 1, ".0%"),
        "GFLOP": lambda row: _scaled(row.flops, 1e-9, ".4g"),
        "GFLOP/s": lambda row: _scaled(row.flops_per_second, 1e-9, ".1f"),
        "of peak": lambda row: _scaled(row.peak_share, 1, ".0%"),
        "compiled MB": lambda row: _scaled(row.compiled_bytes, 1e-6, ".0f"),
        "compile s": lambda row: _scaled(row.compile_seconds, 1, ".1f"),
    }
    table = [[name, *(find(row) or "-" for row in rows)] for name, find in columns.items() if any(map(find, rows))]
    lines = aligned(list(zip(*table, strict=True)), right=range(1, len(table)))
    errors = [None, *(row.error for row in rows)]
    return "\n".join(f"{line}  {error}" if error else line for line, error in zip(lines, errors, strict=True))


def _scaled(value: float | None, factor: float, style: str) -> str | None:
    return None if value is None else format(value * factor, style)


def describe(rows: Sequence[Row]) -> str:
    """What a table was measured on: the machine, the peak it is held against, memory."""
    facts = machine()
    lines = [
        f"{rows[0].model} at {next((row.size for row in rows if row.size), '?')} px, {rows[0].dtype}",
        f"{facts['cpu']}, {facts['usable_cores']} of {facts['cores']} cores; {facts['device_count']} x {facts['device_kind']}; "
        f"jax {facts['jax']}, flax {facts['flax']}, Python {facts['python']}; {facts['date']}",
    ]
    for most, origin in dict.fromkeys((row.peak, row.peak_origin) for row in rows):
        if most is not None:
            lines.append(f"peak {most / 1e12:.3g} TFLOP/s ({origin})")
    if facts["platform"] == "cpu" and any(row.devices > 1 for row in rows):
        lines.append("the devices are simulated: they share the cores, so more of them compute no faster")
    lines.append(f"resident memory of the process: {peak_rss() / 1e6:.0f} MB at most")
    on_device = device_peak()
    if on_device is not None:
        lines.append(f"memory in use on the first device: {on_device / 1e6:.0f} MB at most")
    return "\n".join(lines)


def to_json(rows: Sequence[Row]) -> str:
    """`{"machine": ..., "rows": [...]}` as text: facts of the machine and every figure of every row."""
    return json.dumps({"machine": machine(), "rows": [dataclasses.asdict(row) for row in rows]}, indent=2) + "\n"
