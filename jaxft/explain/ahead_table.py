"""What compiling ahead of time found, as text for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxft.columns import aligned
from jaxft.explain.table import flops, sent, size
from jaxft.parallel import gigabytes

if TYPE_CHECKING:
    from jaxft.explain.ahead import Ahead, PhaseAhead


def describe(found: Ahead) -> str:
    accumulated = f" in {found.accum_steps} microbatches" if found.accum_steps > 1 else ""
    hosts = "" if found.hosts == 1 else f" of {found.hosts} hosts"
    slices = "" if found.slices == 1 else f" in {found.slices} slices"
    axes = ", ".join(f"{axis} {size}" for axis, size in found.mesh.items())
    lines = [
        f"{found.model} at {found.size} pixels, {found.dtype}, batch {found.batch_size}{accumulated}, for {found.target}: "
        f"{found.devices} x {found.figures.device_kind}{hosts}{slices} ({axes})",
        "compiled from shapes for hardware that is not here: nothing was run",
    ]
    for phase in found.phases:
        share = phase.trained / phase.parameters
        lines += ["", f"{phase.name}: {phase.trained:,} of {phase.parameters:,} parameters trained ({share:.2%})"]
        lines += [*_compiling(phase, found), *_memory(phase), *_collectives(phase), *_roofline(phase, found)]
    return "\n".join(lines)


def _compiling(phase: PhaseAhead, found: Ahead) -> list[str]:
    made = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    said = "refused for want of memory, after" if phase.refused else "yes, in"
    return [f"compiles       {said} {phase.compile_seconds:.1f} s ({made})"]


def _memory(phase: PhaseAhead) -> list[str]:
    share = phase.needed / max(phase.usable, 1)
    lines = [
        f"memory         needs {gigabytes(phase.needed)} of the {gigabytes(phase.usable)} a program can have on each device "
        f"({share:.0%}): {'fits' if phase.fits else 'does NOT fit'}"
    ]
    if memory := phase.memory:
        lines.append(
            f"               state and batch {gigabytes(memory.arguments)}, results beside them "
            f"{size(memory.outputs - memory.aliased)}, activations and work space {gigabytes(memory.temporaries)}"
        )
    lines += [f"               try {change}" for change in phase.try_next]
    for remedy in phase.remedies:
        lines.append(f"               {remedy.change}: {gigabytes(remedy.peak)}, {'fits' if remedy.fits else 'not enough'}")
    return lines


def _collectives(phase: PhaseAhead) -> list[str]:
    if phase.refused:
        return []
    told = sent(phase.collectives)
    return [f"collectives    {told}{' on each device' if phase.collectives else ''}"]


def _roofline(phase: PhaseAhead, found: Ahead) -> list[str]:
    line, figures = phase.roofline, found.figures
    if line is None:
        return []
    peak = figures.bfloat16 if found.dtype == "bfloat16" else figures.float32
    near, far = ("slice", "slices") if found.figures.device_kind.startswith("TPU") else ("host", "hosts")
    rows = [
        ("compute", _time(line.compute), f"{flops(phase.flops / found.devices)} at {peak / 1e12:,.0f} TFLOP/s"),
        ("memory", _time(line.memory), f"{gigabytes(phase.main_memory_bytes)} at {figures.bandwidth / 1e9:,.0f} GB/s"),
        ("links", _time(line.links), f"{size(phase.link_bytes)} sent within the {near} at {figures.link / 1e9:,.0f} GB/s"),
    ]
    if phase.network_bytes and figures.network is None:
        rows.append(("network", "unknown", f"{size(phase.network_bytes)} sent between {far}: its speed is not published"))
    elif phase.network_bytes and line.network is not None:
        rate = f"{figures.network / 1e9:,.1f}" if figures.network else ""
        rows.append(("network", _time(line.network), f"{size(phase.network_bytes)} sent between {far} at {rate} GB/s"))
    return [
        f"at best        {_time(line.seconds)} a step, {line.images_per_second:,.0f} images/s: an upper bound from published "
        f"figures, bound by {line.bound}; never run",
        *(f"               {row}" for row in aligned(rows, right=(1,))),
    ]


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.2f} ms" if seconds >= 1e-4 else f"{seconds * 1e6:.1f} us"
