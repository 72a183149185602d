"""Names for the leaves of a parameter tree: '/' paths, globs, split, merge and diff.

Trees are nested dicts with string keys. Patterns are matched against whole paths, segment by segment: `*` stands for
anything within one segment, `**` for any number of segments (none included), `{a,b}` is not supported. A pattern without
a trailing `**` also names everything below what it matches: `fc` is `fc/kernel` and `fc/bias`, never `fc2/kernel`.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxft.errors import JaxftError, near


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `{'/' path: leaf}` in the tree's own order. An empty dict has no leaves and leaves no trace."""
    return dict(_walk(tree, ""))


def _walk(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        path = f"{prefix}/{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            yield from _walk(value, path)
        else:
            yield path, value


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`.

    Raises:
      JaxftError: where one path is both a leaf and a parent of another.
    """
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, last = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise JaxftError(f"'{path}' cannot stand below a leaf of the same name ('{parent}')")
        if last in node:
            raise JaxftError(f"'{path}' is given twice")
        node[last] = leaf
    return tree


def paths(tree: Mapping[str, Any]) -> list[str]:
    """The '/' paths of all leaves."""
    return list(flatten(tree))


def map_with_path(function: Callable[[str, Any], Any], tree: Mapping[str, Any]) -> dict[str, Any]:
    """Applies `function(path, leaf)` to every leaf."""
    return unflatten({path: function(path, leaf) for path, leaf in flatten(tree).items()})


@functools.lru_cache(maxsize=4096)
def _compile(pattern: str) -> re.Pattern[str]:
    segments = []
    for segment in pattern.strip("/").split("/"):
        if segment == "**":
            segments.append("(?:[^/]+/)*")
        else:
            segments.append("[^/]*".join(re.escape(part) for part in segment.split("*")) + "/")
    return re.compile("".join(segments) + "(?:.*/)?")


def matches(pattern: str, path: str) -> bool:
    """Whether the glob `pattern` names `path` or something above it."""
    return _compile(pattern).fullmatch(path + "/") is not None


def find(pattern: str, candidates: Iterable[str]) -> list[str]:
    """The candidates named by `pattern`.

    Raises:
      JaxftError: where there is none; the message names what looks like it.
    """
    candidates = list(candidates)
    found = [path for path in candidates if matches(pattern, path)]
    if not found:
        prefixes = {"/".join(path.split("/")[: depth + 1]) for path in candidates for depth in range(path.count("/") + 1)}
        raise JaxftError(f"pattern '{pattern}' matches no parameter{near(pattern, prefixes)}")
    return found


def split(tree: Mapping[str, Any], mask: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits `tree` in two by a tree of bools of the same shape: (where True, where False). Other leaves are left out."""
    flat, chosen = flatten(tree), flatten(mask)
    if flat.keys() != chosen.keys():
        raise JaxftError(f"the mask does not fit the tree: {sorted(flat.keys() ^ chosen.keys())[:4]} stand in one only")
    return (
        unflatten({path: leaf for path, leaf in flat.items() if chosen[path]}),
        unflatten({path: leaf for path, leaf in flat.items() if not chosen[path]}),
    )


def merge(*trees: Mapping[str, Any]) -> dict[str, Any]:
    """Joins trees that share no leaf: the inverse of `split`. Keys are sorted, as JAX does.

    Raises:
      JaxftError: where a leaf stands in two of them.
    """
    leaves: dict[str, Any] = {}
    for tree in trees:
        flat = flatten(tree)
        if doubled := leaves.keys() & flat.keys():
            raise JaxftError(f"cannot merge: {sorted(doubled)[:4]} stand in both trees")
        leaves |= flat
    return unflatten({path: leaves[path] for path in sorted(leaves)})


def count(tree: Mapping[str, Any]) -> int:
    """Number of elements of all leaves (arrays or shape structs)."""
    return sum(int(np.prod(leaf.shape)) for leaf in flatten(tree).values())


def nbytes(tree: Mapping[str, Any]) -> int:
    """Bytes of all leaves (arrays or shape structs)."""
    return sum(int(np.prod(leaf.shape)) * np.dtype(leaf.dtype).itemsize for leaf in flatten(tree).values())


def digest(leaves: Mapping[str, Any]) -> str:
    """sha256 over names, dtypes, shapes and values of arrays by name, whatever their order."""
    found = hashlib.sha256()
    for name, leaf in sorted(leaves.items()):
        array = np.asarray(leaf)
        found.update(f"{name} {array.dtype} {array.shape}\0".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


@dataclasses.dataclass(frozen=True)
class Diff:
    """How a tree found differs from the one expected. False where it does not."""

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    changed: tuple[tuple[str, str, str], ...] = ()  # (path, expected, found), e.g. ("fc/bias", "f32[10]", "f32[1000]")

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.changed)

    def __str__(self) -> str:
        parts = []
        if self.changed:
            rows = [f"{path} is {found}, not {expected}" for path, expected, found in self.changed]
            parts.append(_few(rows, "other shape or dtype"))
        if self.missing:
            parts.append(_few(self.missing, "missing"))
        if self.unexpected:
            parts.append(_few(self.unexpected, "unexpected"))
        return "; ".join(parts) or "no difference"


def _few(rows: Iterable[str], title: str, most: int = 4) -> str:
    rows = list(rows)
    more = f", and {len(rows) - most} more" if len(rows) > most else ""
    return f"{len(rows)} {title} ({', '.join(rows[:most])}{more})"


def describe(leaf: Any) -> str:
    """An array's dtype and shape as `float32[3,3,64,128]`."""
    return f"{np.dtype(leaf.dtype).name}[{','.join(map(str, leaf.shape))}]"


def diff(expected: Mapping[str, Any], found: Mapping[str, Any], *, dtypes: bool = True) -> Diff:
    """Compares names, shapes and (unless `dtypes` is False) dtypes of two trees of arrays or shape structs."""
    want, have = flatten(expected), flatten(found)
    return Diff(
        missing=tuple(path for path in want if path not in have),
        unexpected=tuple(path for path in have if path not in want),
        changed=tuple(
            (path, describe(want[path]), describe(have[path]))
            for path in want
            if path in have
            and (
                tuple(want[path].shape) != tuple(have[path].shape)
                or (dtypes and np.dtype(want[path].dtype) != np.dtype(have[path].dtype))
            )
        ),
    )
