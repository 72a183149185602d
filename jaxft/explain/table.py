"""An explanation as text for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from jaxft.columns import aligned
from jaxft.explain.collectives import Collective
from jaxft.explain.step import Cost
from jaxft.explain.verdict import Verdict, Work
from jaxft.parallel import gigabytes

if TYPE_CHECKING:
    from jaxft.explain.explain import Explanation, PhaseExplanation


def describe(found: Explanation) -> str:
    accumulated = f" in {found.accum_steps} microbatches" if found.accum_steps > 1 else ""
    lines = [
        f"{found.model} at {found.size} pixels, {found.dtype}, batch {found.batch_size}{accumulated}, "
        f"{found.devices} x {found.device_kind}"
    ]
    for phase in found.phases:
        share = phase.trained / phase.parameters
        lines += ["", f"{phase.name}: {phase.trained:,} of {phase.parameters:,} parameters trained ({share:.2%})"]
        lines += [*_costs(phase), *_verdict(phase), *_memory(phase)]
    return "\n".join(lines)


def _costs(phase: PhaseExplanation) -> list[str]:
    step, full = phase.step, phase.full
    rows = [("", "this step", *(("all trained", "saved") if full else ()))]

    def add(title: str, read: Callable[[Cost], float | None], show: Callable[[float], str]) -> None:
        here, whole = read(step), None if full is None else read(full)
        if here is None or (not here and not whole):
            return
        more = () if full is None or whole is None else (show(whole), f"{1 - here / whole:.1%}" if whole else "")
        rows.append((title, show(here), *more))

    add("FLOPs of products and convolutions", lambda cost: cost.flops, flops)
    add("  of them done twice (remat)", lambda cost: cost.recomputed, flops)
    add("FLOPs, XLA's count of everything", lambda cost: cost.xla_flops, flops)
    add("bytes accessed on each device", lambda cost: cost.bytes_accessed, gigabytes)
    add("peak memory on each device", lambda cost: cost.memory.peak if cost.memory else None, gigabytes)
    add("  state and batch", lambda cost: cost.memory.arguments if cost.memory else None, gigabytes)
    add("  results beside them", lambda cost: cost.memory.outputs - cost.memory.aliased if cost.memory else None, gigabytes)
    add("  activations, work space", lambda cost: cost.memory.temporaries if cost.memory else None, gigabytes)
    for kind in dict.fromkeys(found.kind for cost in (step, full) if cost for found in cost.collectives):
        count = next((found.count for found in step.collectives if found.kind == kind), 0)
        add(
            f"{count} {kind}{'' if count == 1 else 's'} on each device",
            lambda cost, kind=kind: sum(found.nbytes for found in cost.collectives if found.kind == kind),  # type: ignore[misc]
            size,
        )
    return aligned(rows, right=(1, 2, 3))


def _verdict(phase: PhaseExplanation) -> list[str]:
    verdict = phase.verdict
    everything = phase.step.xla_flops / max(phase.forward_xla_flops, 1)
    lines = [
        f"frozen work    {_headline(verdict)}",
        f"               forward {flops(verdict.forward)}, backward {flops(verdict.found)}, of which the trained parameters "
        f"ask for {flops(verdict.needed)}",
        f"               by XLA's count the forward pass is {flops(phase.forward_xla_flops)}, the step {everything:.4f} of it",
    ]
    if verdict.through:
        work = sum(item.flops for item in verdict.through)
        names = _few([item.module for item in verdict.through])
        lines.append(f"               {flops(work)} pass through frozen layers to trained ones, as they must: {names}")
    lines += [f"               {_waste(item)}" for item in verdict.wasted[:8]]
    lines += [f"               compiled, though not asked for: {name}" for name in verdict.compiled[:8]]
    return lines


def _headline(verdict: Verdict) -> str:
    if verdict.clean:
        return "none is left in the backward pass"
    return f"LEFT in the backward pass: {flops(sum(item.flops for item in verdict.wasted))}"


def _waste(item: Work) -> str:
    return f"{item.module}: {item.what}" + (f", {flops(item.flops)}" if item.flops else "")


def _memory(phase: PhaseExplanation) -> list[str]:
    memory, limit = phase.step.memory, phase.limit
    if memory is None:
        return ["memory         the compiler does not say"]
    if limit is None:
        lines = [f"memory         needs {gigabytes(memory.peak)} on each device; what that has is not known"]
    else:
        known = "" if limit.certain else " free here now"
        lines = [
            f"memory         needs {gigabytes(memory.peak)} of {gigabytes(limit.nbytes)}{known} on each device "
            f"({memory.peak / max(limit.nbytes, 1):.0%}): {'fits' if phase.fits else 'does NOT fit within 90 %'}"
        ]
    for remedy in phase.remedies:
        lines.append(f"               {remedy.change}: {gigabytes(remedy.peak)}, {'fits' if remedy.fits else 'not enough'}")
    if phase.actual_peak is not None:
        share = memory.peak / max(phase.actual_peak, 1) - 1
        lines.append(f"               a run took {gigabytes(phase.actual_peak)}; predicted was {share:+.1%}")
    return lines


def _few(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def size(nbytes: float) -> str:
    """12 as "12 B", 82e3 as "82.0 kB", more as `gigabytes` says it."""
    return f"{nbytes:.0f} B" if nbytes < 1e3 else f"{nbytes / 1e3:.1f} kB" if nbytes < 1e5 else gigabytes(nbytes)


def sent(found: Sequence[Collective]) -> str:
    """ "2 all-reduces 82.0 kB, 1 all-gather 12 MB"; "none"."""
    return ", ".join(f"{one.count:,} {one.kind}{'' if one.count == 1 else 's'} {size(one.nbytes)}" for one in found) or "none"


def flops(count: float) -> str:
    for unit, size in (("TFLOP", 1e12), ("GFLOP", 1e9), ("MFLOP", 1e6)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count:,.0f} FLOP"
