"""`compile_for`: a config's training steps, compiled for hardware that is not here. Nothing is run, no weights are read."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import time
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxft import tree
from jaxft.config import check_config
from jaxft.errors import JaxftError
from jaxft.explain.collectives import Collective, exchanges, totals
from jaxft.explain.explain import chosen_phases
from jaxft.explain.program import live_ops
from jaxft.explain.remedies import Remedy, candidates, find_remedies, written
from jaxft.explain.roofline import Roofline, bytes_sent, homes, roofline
from jaxft.explain.step import compile_step, trace_step
from jaxft.explain.traffic import main_memory_bytes
from jaxft.parallel import Memory, make_mesh, memory_of
from jaxft.parallel.targets import Figures, Target, TooLarge, parse_target, prepare, target_devices, too_large
from jaxft.phases import Phase
from jaxft.plan import Plan, make_plan


@dataclasses.dataclass(frozen=True)
class PhaseAhead:
    """A phase's step on a target. Bytes are on each device.

    Attributes:
      name: of the phase.
      trained, parameters: how many parameters are trained, and how many there are.
      compile_seconds: what compiling took here.
      refused: the compiler made no program, for want of memory; what follows from a program is then empty.
      memory: what the compiler says of the program.
      needed, usable: bytes the step takes, and a program can have.
      fits: whether it does: by the compiler's own verdict (TPU), by these two (NVIDIA).
      collectives: what devices tell each other, by kind.
      flops: of convolutions and matrix products, all devices together.
      main_memory_bytes: see `jaxft.explain.traffic`.
      link_bytes, network_bytes: sent, see `jaxft.explain.roofline.bytes_sent`.
      roofline: the least time of a step.
      try_next: where it does not fit: changes of the config that may help, not compiled.
      remedies: where these were asked for: the same, compiled one by one.
    """

    name: str
    trained: int
    parameters: int
    compile_seconds: float
    refused: bool
    memory: Memory | None
    needed: int
    usable: int
    fits: bool
    collectives: tuple[Collective, ...]
    flops: int
    main_memory_bytes: int
    link_bytes: float
    network_bytes: float
    roofline: Roofline | None
    try_next: tuple[str, ...]
    remedies: tuple[Remedy, ...]


@dataclasses.dataclass(frozen=True)
class Ahead:
    """A config's steps on a target; reads as text.

    Attributes:
      target: its name; `devices` of `device_kind` in `hosts` computers.
      figures: what is published of a device.
      mesh: sizes of the axes data, fsdp, tensor.
      model, size, batch_size, accum_steps, dtype: of the step.
      versions: of JAX and the compiler.
      phases: in their order.
    """

    target: str
    devices: int
    hosts: int
    slices: int
    figures: Figures
    mesh: dict[str, int]
    model: str
    size: int
    batch_size: int
    accum_steps: int
    dtype: str
    versions: dict[str, str]
    phases: tuple[PhaseAhead, ...]

    @property
    def fits(self) -> bool:
        return all(phase.fits for phase in self.phases)

    def to_json(self) -> str:
        """All figures, and those derived from them that the text shows."""
        found: dict[str, Any] = dataclasses.asdict(self)
        for phase, values in zip(self.phases, found["phases"], strict=True):
            if phase.memory is not None:
                values["memory"]["peak"] = phase.memory.peak
            if phase.roofline is not None:
                values["roofline"] |= {"seconds": phase.roofline.seconds, "bound": phase.roofline.bound}
        return json.dumps(found, indent=2)

    def __str__(self) -> str:
        from jaxft.explain.ahead_table import describe

        return describe(self)


def compile_for(
    config: ConfigDict,
    target: str | Target,
    *,
    phase: str | None = None,
    remedies: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Ahead:
    """Compiles the training step of each phase for hardware that is not here: the one that a run compiles there.

    Call it before JAX computes anything in this process (`jaxft.parallel.targets.prepare`): the process computes on the CPU
    from then on. A step takes a minute or more to compile for TPUs.

    Args:
      config: see `jaxft.config.default_config`. The data must be there: it says how many classes there are.
      target: "v5e:4x4", "2xv5e:4x4", "h100:8"; see `jaxft.parallel.targets.parse_target`.
      phase: only this one.
      remedies: where a step does not fit, compile what may help, one change after the other.
      say: is given a line before each step that is compiled.

    Raises:
      JaxftError: no such target or phase, no compiler for it, a step that it does not take for another reason than memory, or
        anything in the config or the data that does not fit.
    """
    target = parse_target(target) if isinstance(target, str) else target
    check_config(config)
    prepare(target)
    plan = make_plan(config, weights=False)
    mesh = make_mesh(config.parallel.mesh, target_devices(target))

    def ahead(known: Phase) -> PhaseAhead:
        say(f"compiling {known.name} for {target.name}")
        return _ahead(plan, known, config, mesh, target, remedies, say)

    return Ahead(
        target=target.name,
        devices=target.devices,
        hosts=target.hosts,
        slices=target.slices,
        figures=target.figures,
        mesh=dict(mesh.shape),
        model=plan.model.name,
        size=plan.model.preprocessing.size,
        batch_size=config.input.batch_size,
        accum_steps=config.train.accum_steps,
        dtype=config.model.dtype,
        versions=versions(target),
        phases=tuple(ahead(known) for known in chosen_phases(plan, phase)),
    )


def versions(target: Target) -> dict[str, str]:
    """Of JAX and of the compiler for a target."""
    compilers = ("libtpu",) if target.kind == "tpu" else ("jax-cuda12-plugin", "jax-cuda13-plugin")
    found = {}
    for name in ("jax", *compilers):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _ahead(
    plan: Plan,
    phase: Phase,
    config: ConfigDict,
    mesh: Mesh,
    target: Target,
    remedies: bool,
    say: Callable[[str], None],
) -> PhaseAhead:
    started = time.perf_counter()
    compiled = _compiled(plan, phase, config, mesh, target)
    seconds = time.perf_counter() - started
    memory = None if isinstance(compiled, TooLarge) else memory_of(compiled)
    needed, usable = _needed(compiled), compiled.usable if isinstance(compiled, TooLarge) else target.figures.usable
    fits = _fits(compiled, target)
    flops = sum(op.flops for op in live_ops(trace_step(plan, phase, config, mesh).jaxpr))
    text = "" if isinstance(compiled, TooLarge) else compiled.as_text()
    found, nbytes = exchanges(text), main_memory_bytes(text)
    links, network = bytes_sent(found, homes(mesh), target.slices)

    def measured(plan: Plan, phase: Phase, other: ConfigDict) -> int:
        say(f"compiling {phase.name} with {_difference(config, other)}")
        return _needed(_compiled(plan, phase, other, make_mesh(other.parallel.mesh, list(mesh.devices.flat)), target))

    return PhaseAhead(
        name=phase.name,
        trained=tree.count(tree.split(plan.params, phase.mask)[0]),
        parameters=tree.count(plan.params),
        compile_seconds=seconds,
        refused=not text,
        memory=memory,
        needed=needed,
        usable=usable,
        fits=fits,
        collectives=totals(found),
        flops=flops,
        main_memory_bytes=nbytes,
        link_bytes=links,
        network_bytes=network,
        roofline=roofline(
            target.figures,
            flops=flops / target.devices,
            dtype=config.model.dtype,
            nbytes=nbytes,
            link_bytes=links,
            network_bytes=network,
            batch_size=config.input.batch_size,
        )
        if text
        else None,
        try_next=() if fits or remedies else _try_next(config, mesh),
        remedies=find_remedies(plan, config, phase.name, mesh=mesh, needs=measured, enough=lambda peak: peak <= usable)
        if remedies and not fits
        else (),
    )


def _compiled(plan: Plan, phase: Phase, config: ConfigDict, mesh: Mesh, target: Target) -> Any:
    """The compiled step, or `TooLarge` where the compiler refuses it for that."""
    try:
        return compile_step(plan, phase, config, mesh)
    except jax.errors.JaxRuntimeError as error:
        refused = too_large(error)
        if refused is None:
            line = str(error).strip().splitlines()[0][:300]
            raise JaxftError(f"{phase.name} does not compile for {target.name}: {line}") from error
        return refused


def _needed(compiled: Any) -> int:
    if isinstance(compiled, TooLarge):
        return compiled.needed
    memory = memory_of(compiled)
    return 0 if memory is None else memory.peak


def _fits(compiled: Any, target: Target) -> bool:
    if isinstance(compiled, TooLarge):
        return False
    # What the TPU compiler compiles fits: it counts for itself, tiles and all.
    return target.kind == "tpu" or _needed(compiled) <= target.figures.usable


def _try_next(config: ConfigDict, mesh: Mesh) -> tuple[str, ...]:
    steps, others = candidates(config, mesh)
    return (
        *([f"--config.train.accum_steps={steps[0]} or more, up to {steps[-1]}"] if steps else []),
        *(written({key: value}) for key, value in others.items()),
        "a smaller --config.input.batch_size",
    )


def _difference(config: ConfigDict, other: ConfigDict) -> str:
    keys = ("train.accum_steps", "model.remat", "model.dtype", "parallel.mesh")
    pairs = [(key, *(part[key.split(".")[0]][key.split(".")[1]] for part in (config, other))) for key in keys]
    return " ".join(f"{key}={after}" for key, before, after in pairs if before != after)
