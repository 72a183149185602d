"""What a traced program computes: its live operations, by module, and the backward pass that reverse mode cannot do without.

Read from jaxprs, before any compiler rewrites them: each operation carries the path of the module it belongs to, `transpose(`
in its name stack if it is of the backward pass, and `rematted_computation` if `jax.checkpoint` does it again. A compiler only
ever removes work from such a program.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

#: Components of a name that jax.checkpoint, and the backward pass, leave behind.
BACKWARD, RECOMPUTED = "transpose(", "rematted_computation"


@dataclasses.dataclass(frozen=True)
class Op:
    """An operation. `flops` are of convolutions and matrix products, times the trips of the loops around it."""

    primitive: str
    name: str
    flops: int

    @property
    def backward(self) -> bool:
        return BACKWARD in self.name and not self.recomputed

    @property
    def recomputed(self) -> bool:
        return RECOMPUTED in self.name


def live_ops(program: ClosedJaxpr) -> list[Op]:
    """The operations of a program that one of its results, or an effect, depends on."""
    found: list[Op] = []

    def visit(equation: Any, name: str, times: int) -> None:
        found.append(Op(equation.primitive.name, name, times * matrix_flops(equation)))

    _sweep_back(program.jaxpr, [True] * len(program.jaxpr.outvars), "", 1, visit)
    return found[::-1]


def _sweep_back(jaxpr: Jaxpr, wanted: Sequence[bool], prefix: str, times: int, visit: Callable[..., None]) -> list[bool]:
    """Visits the live equations, last first; returns which inputs they read."""
    live = {var for var, want in zip(jaxpr.outvars, wanted, strict=True) if want and not isinstance(var, Literal)}
    for equation in reversed(jaxpr.eqns):
        outs = [var in live for var in equation.outvars]
        if not any(outs) and not equation.effects:
            continue
        name = _join(prefix, str(equation.source_info.name_stack))
        reads = [True] * len(equation.invars)
        inner = bodies(equation)
        if not inner:
            visit(equation, name, times)
        elif equation.primitive.name == "scan":
            reads = _sweep_scan(equation, inner[0], outs, name, times, visit)
        elif called_plainly(equation, inner):
            reads = _sweep_back(inner[0], outs, name, times, visit)
        else:
            for body in inner:
                _sweep_back(body, [True] * len(body.outvars), name, times, visit)
        live |= {var for var, read in zip(equation.invars, reads, strict=True) if read and not isinstance(var, Literal)}
    return [var in live for var in jaxpr.invars]


def _sweep_scan(equation: Any, body: Jaxpr, outs: list[bool], name: str, times: int, visit: Callable[..., None]) -> list[bool]:
    constants, carried = _scan_parts(equation, body)
    while True:  # what the next trip reads of the carry is wanted of this one
        reads = _sweep_back(body, outs, name, times, lambda *_: None)
        carry = reads[constants : constants + carried]
        wanted = [out or read for out, read in zip(outs[:carried], carry, strict=True)] + outs[carried:]
        if wanted == outs:
            break
        outs = wanted
    return _sweep_back(body, outs, name, times * equation.params["length"], visit)


def _scan_parts(equation: Any, body: Jaxpr) -> tuple[int, int]:
    """How many inputs of a scan are constants, and how many are carried; the rest it goes over.

    Read off the shapes, for the names of its parameters change with JAX: what a scan goes over has an axis less inside.
    """

    def whole(outside: Sequence[Any], inside: Sequence[Any]) -> int:
        return sum(outer.aval.ndim == inner.aval.ndim for outer, inner in zip(outside, inside, strict=True))

    carried = whole(equation.outvars, body.outvars)
    return whole(equation.invars, body.invars) - carried, carried


def bodies(equation: Any) -> list[Jaxpr]:
    """The programs inside an equation; none where they are scalar functions, as in a reduction or a sort."""
    if equation.primitive.name.startswith(("reduce", "scatter", "sort", "select_and", "argm", "cum")):
        return []
    found = []
    for value in equation.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr):
                found.append(item.jaxpr)
            elif isinstance(item, Jaxpr):
                found.append(item)
    return found


def called_plainly(equation: Any, inner: Sequence[Jaxpr]) -> bool:
    """Whether inputs and results of the equation are those of its one program, in order."""
    return (
        len(inner) == 1
        and equation.primitive.name != "while"
        and len(inner[0].invars) == len(equation.invars)
        and len(inner[0].outvars) == len(equation.outvars)
    )


def _join(prefix: str, name: str) -> str:
    return f"{prefix}/{name}" if prefix and name else prefix or name


@dataclasses.dataclass(frozen=True)
class Needs:
    """The backward pass that a forward pass and a choice of trained leaves ask for, by module.

    A product of two operands on the way to the loss has one product of the same size in the backward pass for each operand that
    a trained leaf reaches. A `cond` counts as if all its branches were taken, a `while` as if its body ran once.

    Attributes:
      flops: of that backward pass.
      sums: how many sums: the gradients of what was broadcast.
      reached: names of the modules through which a gradient must pass.
      forward: FLOPs of the forward pass.
    """

    flops: Mapping[str, int]
    sums: Mapping[str, int]
    reached: frozenset[str]
    forward: int

    def times(self, passes: int) -> Needs:
        """Of so many passes of this kind."""
        flops, sums = ({module: passes * count for module, count in part.items()} for part in (self.flops, self.sums))
        return Needs(flops, sums, self.reached, passes * self.forward)


def backward_needs(forward: ClosedJaxpr, trained: Sequence[bool], modules: frozenset[str]) -> Needs:
    """Follows the trained inputs through a forward pass to its first result, the loss.

    Args:
      forward: the loss comes first; what else it returns is not differentiated.
      trained: one bool an input.
      modules: see `modules_of`.
    """
    flops: dict[str, int] = collections.defaultdict(int)
    sums: dict[str, int] = collections.defaultdict(int)
    reached: set[str] = set()
    total = 0

    def visit(equation: Any, name: str, touched: Sequence[bool], passes: bool, times: int) -> None:
        nonlocal total
        module = module_of(name, modules)
        work = times * matrix_flops(equation)
        total += work
        if passes:
            reached.add(module)
            flops[module] += work * sum(touched)
            sums[module] += equation.primitive.name == "broadcast_in_dim"

    wanted = [index == 0 for index in range(len(forward.jaxpr.outvars))]
    _sweep_forward(forward.jaxpr, trained, wanted, "", 1, visit)
    return Needs(dict(flops), dict(sums), frozenset(reached), total)


def _sweep_forward(
    jaxpr: Jaxpr, touched: Sequence[bool], wanted: Sequence[bool], prefix: str, times: int, visit: Callable[..., None]
) -> list[bool]:
    """Visits all equations in order; returns which outputs a touched input reaches on a way that ends in a wanted one."""
    live = _live_smoothly(jaxpr, wanted)
    reached = {var for var, touch in zip(jaxpr.invars, touched, strict=True) if touch}
    for equation in jaxpr.eqns:
        ins = [not isinstance(var, Literal) and var in reached for var in equation.invars]
        ends = [var in live for var in equation.outvars]
        name = _join(prefix, str(equation.source_info.name_stack))
        inner = bodies(equation)
        if equation.primitive.name == "scan":
            outs = _scan_forward(equation, inner[0], ins, [any(ends)] * len(ends), name, times, visit)
        elif equation.primitive.name == "cond":
            ways = [_sweep_forward(branch, ins[1:], ends, name, times, visit) for branch in inner]
            outs = [any(way) for way in zip(*ways, strict=True)]
        elif inner and called_plainly(equation, inner):
            outs = _sweep_forward(inner[0], ins, ends, name, times, visit)
        else:
            for body in inner:
                _sweep_forward(body, [any(ins)] * len(body.invars), [any(ends)] * len(body.outvars), name, times, visit)
            smooth = any(ins) and equation.primitive.name != "stop_gradient"
            outs = [smooth and _is_inexact(var) for var in equation.outvars]
            if not inner:
                visit(equation, name, ins, any(out and end for out, end in zip(outs, ends, strict=True)), times)
        reached |= {var for var, out, end in zip(equation.outvars, outs, ends, strict=True) if out and end}
    return [not isinstance(var, Literal) and var in reached for var in jaxpr.outvars]


def _is_inexact(var: Any) -> bool:
    return jnp.issubdtype(var.aval.dtype, jnp.inexact)


def _live_smoothly(jaxpr: Jaxpr, wanted: Sequence[bool]) -> set[Any]:
    """What a wanted output depends on, other than through `stop_gradient`."""
    live = {var for var, want in zip(jaxpr.outvars, wanted, strict=True) if want and not isinstance(var, Literal)}
    for equation in reversed(jaxpr.eqns):
        outs = [var in live for var in equation.outvars]
        if not any(outs) or equation.primitive.name == "stop_gradient":
            continue
        reads = [True] * len(equation.invars)
        inner = bodies(equation)
        if inner and equation.primitive.name != "scan" and called_plainly(equation, inner):
            below = _live_smoothly(inner[0], outs)
            reads = [var in below for var in inner[0].invars]
        live |= {var for var, read in zip(equation.invars, reads, strict=True) if read and not isinstance(var, Literal)}
    return live


def _scan_forward(
    equation: Any,
    body: Jaxpr,
    ins: list[bool],
    wanted: list[bool],
    name: str,
    times: int,
    visit: Callable[..., None],
) -> list[bool]:
    constants, carried = _scan_parts(equation, body)
    while True:
        outs = _sweep_forward(body, ins, wanted, name, times, lambda *_: None)
        carry = [old or new for old, new in zip(ins[constants : constants + carried], outs[:carried], strict=True)]
        grown = ins[:constants] + carry + ins[constants + carried :]
        if grown == ins:
            break
        ins = grown
    return _sweep_forward(body, ins, wanted, name, times * equation.params["length"], visit)


def module_of(name: str, modules: frozenset[str]) -> str:
    """The module an operation belongs to: the longest module path in its name; "" is the network itself, or none.

    Transformations stand between the parts of a path, and a recomputed one begins twice: `layer4/jvp(N)/layer4/checkpoint/1`.
    """
    parts = [part for part in name.split("/") if "(" not in part and part not in (RECOMPUTED, "checkpoint")]
    runs = ("/".join(parts[start:stop]) for start in range(len(parts)) for stop in range(start + 1, len(parts) + 1))
    return max((path for path in runs if path in modules), key=len, default="")


def modules_of(paths: Sequence[str]) -> frozenset[str]:
    """All modules above the parameters at these '/' paths, the root left out."""
    return frozenset("/".join(path.split("/")[:depth]) for path in paths for depth in range(1, path.count("/") + 1))


def names_in(text: str) -> Iterator[str]:
    """The names of the operations in a compiled program's text. XLA writes those of a merged one as `a/(b:c)`."""
    for name in set(re.findall(r'op_name="([^"]*)"', text)):
        head, bracket, tail = name.rpartition("/(")
        yield from [f"{head}/{part}" for part in tail.rstrip(")").split(":")] if bracket else [name]


def matrix_flops(equation: Any) -> int:
    """2 * multiply-adds of a convolution or a matrix product; 0 of anything else.

    A convolution's are those that read a pixel: padding and the zeros between dilated pixels are not counted, so a convolution
    and its two gradients have the same number.
    """
    kind = equation.primitive.name
    if kind == "dot_general":
        (contract, _), _ = equation.params["dimension_numbers"]
        depth = int(np.prod([equation.invars[0].aval.shape[axis] for axis in contract]))
        return 2 * depth * int(np.prod(equation.outvars[0].aval.shape))
    if kind != "conv_general_dilated":
        return 0
    params, (image, kernel) = equation.params, (var.aval.shape for var in equation.invars)
    out = equation.outvars[0].aval.shape
    spec = params["dimension_numbers"]
    pairs = 1
    for axis, (before, _) in enumerate(params["padding"]):
        size, window = image[spec.lhs_spec[2 + axis]], kernel[spec.rhs_spec[2 + axis]]
        read = np.arange(out[spec.out_spec[2 + axis]])[:, None] * params["window_strides"][axis] - before
        read = read + np.arange(window) * params["rhs_dilation"][axis]
        spread = params["lhs_dilation"][axis]
        pairs *= int(((read >= 0) & (read % spread == 0) & (read // spread < size)).sum())
    return 2 * pairs * out[spec.out_spec[0]] * out[spec.out_spec[1]] * kernel[spec.rhs_spec[1]]
