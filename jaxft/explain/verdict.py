"""Whether a training step does backward work for what is frozen. It must not."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence

from jaxft.explain.program import BACKWARD, RECOMPUTED, Needs, Op, module_of, names_in


@dataclasses.dataclass(frozen=True)
class Work:
    """Backward work of one module. `flops` are of its convolutions and matrix products; `what` says what it is."""

    module: str
    what: str
    flops: int


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a step's backward pass does, beside what it must do. FLOPs are of convolutions and matrix products.

    Attributes:
      forward, needed, found: FLOPs of the forward pass, of the backward pass that the trained leaves ask for, and of the one
        that is there.
      recomputed: FLOPs of what `jax.checkpoint` does a second time.
      wasted: backward work that no trained leaf asks for.
      through: input gradients of frozen layers on the way to a trained one: necessary.
      compiled: operations of the backward pass that the compiled program, the one that runs, still has in modules through
        which no gradient must pass.
    """

    forward: int
    needed: int
    found: int
    recomputed: int
    wasted: tuple[Work, ...]
    through: tuple[Work, ...]
    compiled: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """No frozen backward work is left."""
        return not self.wasted and not self.compiled and self.found <= self.needed


def judge_backward(
    ops: Sequence[Op], needs: Needs, mask: Mapping[str, bool], modules: frozenset[str], compiled: str = ""
) -> Verdict:
    """Compares the backward pass of a step with what its trained leaves ask for, module by module.

    Args:
      ops: the live operations of the step, traced in XLA's own convolutions (`JAXFT_OPS=xla`).
      needs: of its forward pass, traced likewise.
      mask: '/' path -> whether it is trained.
      modules: see `jaxft.explain.program.modules_of`.
      compiled: text of the compiled program that runs, in whatever lowering.
    """
    flops: dict[str, int] = collections.defaultdict(int)
    sums: dict[str, int] = collections.defaultdict(int)
    backward = [(module_of(op.name, modules), op) for op in ops if op.backward]
    for module, op in backward:
        flops[module] += op.flops
        sums[module] += op.primitive == "reduce_sum"
    frozen = _frozen_modules(mask)

    wasted, through = [], []
    for module in flops:
        surplus = flops[module] - needs.flops.get(module, 0)
        if module and module not in needs.reached:
            wasted.append(Work(module, "a backward pass through what no gradient has to reach", flops[module]))
        elif surplus > 0:
            what = "a gradient for a frozen kernel" if module in frozen else "an input gradient that only frozen layers take"
            wasted.append(Work(module, what, surplus))
        elif module in frozen and sums[module] > needs.sums.get(module, 0):
            wasted.append(Work(module, "a gradient for a frozen scale or bias", 0))
        elif module in frozen and flops[module]:
            through.append(Work(module, "its input gradient, on the way to a trained layer", flops[module]))
    return Verdict(
        forward=needs.forward,
        needed=sum(needs.flops.values()),
        found=sum(flops.values()),
        recomputed=sum(op.flops for op in ops if op.recomputed),
        wasted=tuple(wasted),
        through=tuple(through),
        compiled=_unasked(compiled, needs, modules),
    )


def _frozen_modules(mask: Mapping[str, bool]) -> set[str]:
    """Modules with parameters of their own, none of them trained."""
    owners = {path.rpartition("/")[0] for path in mask}
    return owners - {path.rpartition("/")[0] for path, trained in mask.items() if trained}


def _unasked(compiled: str, needs: Needs, modules: frozenset[str]) -> tuple[str, ...]:
    found = {name: module_of(name, modules) for name in names_in(compiled) if BACKWARD in name or RECOMPUTED in name}
    return tuple(sorted(name for name, module in found.items() if module and module not in needs.reached))
