"""Name rules: one table converts a network's weights both ways, whole or not at all."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxft import tree
from jaxft.errors import JaxftError


@dataclasses.dataclass(frozen=True)
class Op:
    """How a tensor, or several that become one, is laid out anew, and back.

    Attributes:
      name: for messages.
      forward: takes a foreign tensor, or as many as the rule has sources; a ValueError is a shape that does not fit.
      inverse: gives what `forward` takes: a tensor, or a tuple.
      of_each: of one that takes several tensors, what is done to each before they are put side by side.
    """

    name: str
    forward: Callable[..., np.ndarray]
    inverse: Callable[[np.ndarray], np.ndarray | tuple[np.ndarray, ...]]
    of_each: Op | None = None


IDENTITY = Op("identity", lambda x: x, lambda x: x)
#: torch [O, I, h, w] to HWIO.
CONV = Op("conv", lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))
#: torch [O, I] to [I, O].
DENSE = Op("dense", lambda x: x.T, lambda x: x.T)

#: A dense layer that is written as a 1x1 convolution: torch [O, I, 1, 1] to [I, O].
POINTWISE = Op("pointwise", lambda x: x.reshape(x.shape[:2]).T, lambda x: x.T[:, :, None, None])


def flatten_chw(channels: int, height: int, width: int) -> Op:
    """A dense kernel on a flattened map: torch flattens channels first, [O, C * H * W]; here it is [H * W * C, O]."""

    def forward(x: np.ndarray) -> np.ndarray:
        return x.reshape(-1, channels, height, width).transpose(2, 3, 1, 0).reshape(height * width * channels, -1)

    def inverse(x: np.ndarray) -> np.ndarray:
        return x.reshape(height, width, channels, -1).transpose(3, 2, 0, 1).reshape(-1, channels * height * width)

    return Op(f"flatten_chw({channels}, {height}, {width})", forward, inverse)


def joined(parts: int, op: Op) -> Op:
    """`parts` tensors, each laid out by `op`, become one along the last axis: query, key and value."""

    def forward(*tensors: np.ndarray) -> np.ndarray:
        return np.concatenate([op.forward(tensor) for tensor in tensors], -1)

    def inverse(x: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(np.asarray(op.inverse(part)) for part in np.split(x, parts, -1))

    return Op(f"joined({parts}, {op.name})", forward, inverse, op)


@dataclasses.dataclass(frozen=True)
class Rule:
    """`src`, a foreign dotted name or several, becomes `dst`, a '/' path with its collection first (`params/fc/kernel`).

    `{name}` in `src` matches one piece without dots and fills `{name}` in `dst`. A `dst` of None: known, not wanted. With
    `constant`, it is written all the same: what a library keeps beside the weights, and wants to find.
    """

    src: str | tuple[str, ...]
    dst: str | None
    op: Op = IDENTITY
    constant: np.ndarray | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.src,) if isinstance(self.src, str) else self.src


@dataclasses.dataclass(frozen=True)
class Converted:
    """A conversion that fits.

    Attributes:
      tree: `{"params": ..., "batch_stats": ...}`, without the leaves in `new`.
      new: '/' paths of target leaves that the source does not fill, as declared.
      ignored: source names that were not wanted.
    """

    tree: dict[str, Any]
    new: tuple[str, ...]
    ignored: tuple[str, ...]


@functools.lru_cache(maxsize=8192)
def _pattern(template: str, separator: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template)
    text = "".join(
        re.escape(part) if index % 2 == 0 else f"(?P<{part}>[^{re.escape(separator)}]+)" for index, part in enumerate(parts)
    )
    return re.compile(text)


class _Match(NamedTuple):
    rule: Rule
    part: int  # of its sources
    pieces: dict[str, str]


class _Matcher:
    """The first rule for a name. Rules without `{name}` are looked up, the others tried in turn."""

    def __init__(self, templates: Iterable[tuple[str, Rule, int]], separator: str) -> None:
        self._exact: dict[str, tuple[int, Rule, int]] = {}
        self._patterns: list[tuple[int, re.Pattern[str], Rule, int]] = []
        for order, (template, rule, part) in enumerate(templates):
            if "{" in template:
                self._patterns.append((order, _pattern(template, separator), rule, part))
            else:
                self._exact.setdefault(template, (order, rule, part))

    @classmethod
    def foreign(cls, rules: Sequence[Rule]) -> _Matcher:
        return cls(((src, rule, part) for rule in rules for part, src in enumerate(rule.sources)), ".")

    @classmethod
    def own(cls, rules: Sequence[Rule]) -> _Matcher:
        return cls(((rule.dst, rule, 0) for rule in rules if rule.dst is not None), "/")

    def __call__(self, name: str) -> _Match | None:
        exact = self._exact.get(name)
        for order, pattern, rule, part in self._patterns:
            if exact is not None and exact[0] < order:
                break
            if found := pattern.fullmatch(name):
                return _Match(rule, part, found.groupdict())
        return None if exact is None else _Match(exact[1], exact[2], {})


def convert(
    tensors: Mapping[str, np.ndarray],
    rules: Sequence[Rule],
    target: Mapping[str, Any],
    *,
    new: Iterable[str] = (),
    ignore: Iterable[str] = (),
) -> Converted:
    """Turns foreign tensors into a network's tree: total, or an error that says all that does not fit.

    Args:
      tensors: by foreign name.
      rules: the first that matches a name counts.
      target: `{"params": ..., "batch_stats": ...}` of arrays or shape structs.
      new: globs over target paths that the source need not, and does not, fill; what it has for them is ignored.
      ignore: foreign names, or globs over them, that are not wanted.

    Raises:
      JaxftError: a tensor without a rule, a target filled twice or not at all, another shape, integers for weights.
    """
    first_match = _Matcher.foreign(rules)
    wanted = tree.flatten(target)
    declared = {path for path in wanted if any(tree.matches(pattern, path) for pattern in new)}
    unwanted = set(ignore)
    globs = [pattern for pattern in unwanted if "*" in pattern]
    filled: dict[str, np.ndarray] = {}
    parts: dict[str, dict[int, str]] = {}  # target path -> names found of its rule's sources
    ignored, unknown, wrong = [], [], []
    for name in tensors:
        match = first_match(name)
        dropped = name in unwanted or any(fnmatch.fnmatchcase(name, pattern) for pattern in globs)
        if dropped or (match is not None and match.rule.dst is None):
            ignored.append(name)
            continue
        if match is None:
            unknown.append(name)
            continue
        rule = match.rule
        assert rule.dst is not None
        path = rule.dst.format(**match.pieces)
        found = parts.setdefault(path, {})
        if path in declared or any(tree.matches(pattern, path) for pattern in new):
            ignored.append(name)
        elif path not in wanted:
            unknown.append(f"{name} (for {path})")
        elif path in filled or match.part in found:
            wrong.append(f"{path} is filled twice, by {name} too")
        else:
            found[match.part] = name
            if len(found) == len(rule.sources):
                names = [found[part] for part in range(len(found))]
                filled[path], error = _laid_out(names, [tensors[name] for name in names], rule.op, path, wanted[path])
                wrong += error
    missing = [path for path in wanted if path not in filled and path not in declared]
    problems = [
        f"{len(rows)} {title} ({', '.join(rows[:4])}{f', and {len(rows) - 4} more' if len(rows) > 4 else ''})"
        for rows, title in ((wrong, "do not fit"), (missing, "missing"), (unknown, "unexpected"))
        if rows
    ]
    if problems:
        raise JaxftError("the weights are not of this network: " + "; ".join(problems))
    return Converted(tree.unflatten(filled), tuple(sorted(declared)), tuple(ignored))


def _laid_out(
    names: Sequence[str], tensors: Sequence[np.ndarray], op: Op, path: str, want: Any
) -> tuple[np.ndarray, list[str]]:
    shape = tuple(want.shape)
    try:
        value = op.forward(*tensors)
    except ValueError:
        given = " and ".join(f"{name} {list(tensor.shape)}" for name, tensor in zip(names, tensors, strict=True))
        return tensors[0], [f"{given} cannot be laid out as {path} {list(shape)}"]
    if value.shape != shape:
        return value, [f"{path} is {list(value.shape)}, not {list(shape)}"]
    if jax.dtypes.issubdtype(want.dtype, np.floating) and not jax.dtypes.issubdtype(value.dtype, np.floating):
        return value, [f"{path} is {value.dtype.name}, not {np.dtype(want.dtype).name}"]
    return np.asarray(value, want.dtype, order="C"), []


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a foreign tensor goes: to `path`, laid out by the rule's `op`, as number `part` of its sources."""

    path: str
    rule: Rule
    part: int


def places(names: Iterable[str], rules: Sequence[Rule]) -> dict[str, Place]:
    """Foreign name -> its place, for the names that the rules know and want."""
    first_match = _Matcher.foreign(rules)
    found = {}
    for name in names:
        match = first_match(name)
        if match is not None and match.rule.dst is not None:
            found[name] = Place(match.rule.dst.format(**match.pieces), match.rule, match.part)
    return found


def destinations(names: Iterable[str], rules: Sequence[Rule]) -> dict[str, str]:
    """Foreign name -> target path, for the names that the rules know and want."""
    return {name: place.path for name, place in places(names, rules).items()}


def sources_of(path: str, rules: Sequence[Rule]) -> tuple[Rule, tuple[str, ...]]:
    """The rule of a target path and the foreign names that make it.

    Raises:
      JaxftError: no rule has it.
    """
    match = _Matcher.own(rules)(path)
    if match is None:
        raise JaxftError(f"no rule gives '{path}' a name in the convention asked for")
    return match.rule, tuple(source.format(**match.pieces) for source in match.rule.sources)


def export(variables: Mapping[str, Any], rules: Sequence[Rule]) -> dict[str, np.ndarray]:
    """The inverse of `convert`: a network's tree under foreign names.

    torch counts batches in each BatchNorm; what it reads back gets a count of zero, so that a strict load is satisfied.

    Raises:
      JaxftError: a leaf without a rule.
    """
    first_match = _Matcher.own(rules)
    found: dict[str, np.ndarray] = {}
    for path, leaf in tree.flatten(variables).items():
        match = first_match(path)
        if match is None:
            raise JaxftError(f"no rule gives '{path}' a name in the convention asked for")
        rule, _, pieces = match
        value = rule.op.inverse(np.asarray(leaf))
        for src, part in zip(rule.sources, value if isinstance(value, tuple) else (value,), strict=True):
            name = src.format(**pieces)
            if name in found:
                raise JaxftError(f"two leaves would be called '{name}', '{path}' is the second")
            found[name] = np.asarray(part, order="C")
            if name.endswith(".running_var"):
                found[name.replace("running_var", "num_batches_tracked")] = np.zeros((), np.int64)
    return found | {source: rule.constant for rule in rules if rule.constant is not None for source in rule.sources}
