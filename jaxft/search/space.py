"""What a search varies: keys of a config, and the values that may be drawn for each."""

from __future__ import annotations

import ast
import contextlib
import copy
import dataclasses
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxft.config import FREE_SECTIONS, find_key
from jaxft.errors import JaxftError, near

KINDS = {
    "log": "log(1e-5, 1e-2)",
    "uniform": "uniform(0, 0.1)",
    "int": "int(1, 5)",
    "choice": "choice(resnet18, resnet50)",
}
#: Not searched: by what trials are compared, and the pictures that they are compared on, are the same for all.
_FIXED = ("config.train.monitor", "config.train.mode", "config.data.")


@dataclasses.dataclass(frozen=True)
class Space:
    """The values of one key.

    Attributes:
      kind: "log" (log-uniform), "uniform", "int" (both ends included) or "choice".
      values: (low, high), or what there is to choose from.
    """

    kind: str
    values: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.kind}({', '.join(map(str, self.values))})"


def parse_search(search: Mapping[str, str] | Sequence[str], config: ConfigDict) -> dict[str, Space]:
    """Reads what is to be searched, and checks it against the config.

    Args:
      search: "config.optim.lr=log(1e-5, 1e-2)" each, or a dict of key -> "log(1e-5, 1e-2)"; `KINDS` has one of each kind.
        What is chosen from are Python literals, or text where they are none; text with a comma or a bracket stands in quotes.
      config: has the keys, and their types.

    Raises:
      JaxftError: no such kind or key, a range that is none, values that the key does not take.
    """
    given = list(search.items()) if isinstance(search, Mapping) else [_assignment(text) for text in search]
    if not given:
        raise JaxftError("nothing to search: give --search 'config.optim.lr=log(1e-5, 1e-2)'")
    spaces: dict[str, Space] = {}
    for key, text in given:
        if key in spaces:
            raise JaxftError(f"{key} is searched twice: give it once")
        spaces[key] = _parse_space(key, text)
        _check(key, spaces[key], config)
    return spaces


def _assignment(text: str) -> tuple[str, str]:
    key, equals, space = text.partition("=")
    if not equals:
        raise JaxftError(f"the search '{text}' is not written KEY=VALUES, e.g. 'config.optim.lr=log(1e-5, 1e-2)'")
    return key.strip().removeprefix("--"), space.strip()


def _parse_space(key: str, text: str) -> Space:
    found = re.fullmatch(r"\s*(\w+)\s*\((.*)\)\s*", text, re.DOTALL)
    if not found:
        raise JaxftError(f"{key}: '{text}' says no values: write one of {', '.join(KINDS.values())}")
    kind, items = found[1], _items(found[2])
    if kind not in KINDS:
        raise JaxftError(f"{key}: no search is called '{kind}'{near(kind, KINDS)}; there are {', '.join(KINDS.values())}")
    values = tuple(map(_value, items))
    if kind == "choice":
        if len(values) < 2:
            raise JaxftError(f"{key}: '{text}' leaves nothing to choose: give two values or more, or set --{key}=VALUE")
        if len(set(map(repr, values))) < len(values):
            raise JaxftError(f"{key}: '{text}' has a value twice")
        if None in values:
            raise JaxftError(f"{key}: None cannot be given on a command line: leave it out of '{text}'")
        return Space(kind, values)
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(values) != 2 or len(numbers) != 2 or not all(map(math.isfinite, numbers)):
        raise JaxftError(f"{key}: '{text}' must have two numbers, the lower and the upper end: {KINDS[kind]}")
    low, high = numbers
    if not low < high:
        raise JaxftError(f"{key}: '{text}' is no range: the lower end stands first")
    if kind == "log" and low <= 0:
        raise JaxftError(f"{key}: '{text}': the ends of log must be above 0; uniform takes any")
    if kind == "int" and not all(isinstance(value, int) for value in numbers):
        raise JaxftError(f"{key}: '{text}': the ends of int are whole numbers")
    return Space(kind, (low, high) if kind == "int" else (float(low), float(high)))


def _items(text: str) -> list[str]:
    """What stands between commas that are neither in quotes nor in brackets."""
    items, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        if letter == "," and not quote and not depth:
            items.append("")
        else:
            items[-1] += letter
    return [item.strip() for item in items if item.strip()]


def _value(text: str) -> Any:
    with contextlib.suppress(ValueError, SyntaxError):
        return ast.literal_eval(text)
    return text


def _check(key: str, space: Space, config: ConfigDict) -> None:
    if not key.startswith("config."):
        raise JaxftError(f"the search of '{key}': keys begin with 'config.', as in config.optim.lr")
    if key.startswith(_FIXED):
        raise JaxftError(f"{key} cannot be searched: trials are compared by one figure on one validation split")
    if key.startswith("config.loss.") and config.train.monitor == "loss":
        raise JaxftError(f"{key} is searched, and 'loss' would compare different losses: set --config.train.monitor=accuracy")
    if isinstance(_find(key, config), ConfigDict):
        raise JaxftError(f"{key} is a section with the keys {', '.join(_find(key, config))}: search one of them")
    for value in space.values:
        with_overrides(config, {key: value})


def _find(key: str, config: ConfigDict) -> Any:
    *path, last = key.split(".")[1:]
    in_options = bool(path) and path[-1] in FREE_SECTIONS
    section = find_key(path, config)
    return section.get(last) if in_options else find_key([*path, last], config)


def with_overrides(config: ConfigDict, overrides: Mapping[str, Any]) -> ConfigDict:
    """A copy of a config with some keys set.

    Raises:
      JaxftError: a key takes no such value.
    """
    changed = copy.deepcopy(config)  # which keeps the type of what is None
    for key, value in overrides.items():
        *path, last = key.split(".")[1:]
        section = find_key(path, changed)
        try:
            with section.unlocked():
                if path and path[-1] in FREE_SECTIONS and last in section:
                    del section[last]
                section[last] = value
        except (TypeError, ValueError) as error:
            kind = section.get_type(last).__name__
            instead = "; search it with int(LOW, HIGH) or choice(...)" if kind == "int" else ""
            raise JaxftError(f"{key} is of type {kind}: it cannot be {value!r}{instead}") from error
    return changed


def as_text(key: str, value: Any) -> str:
    """A value as the command line takes it, so that it is the same value again."""
    if not isinstance(value, str):
        return repr(value)
    in_options = key.split(".")[-2] in FREE_SECTIONS
    return repr(value) if in_options and not isinstance(_value(value), str) else value


def draw(spaces: Mapping[str, Space], seed: int, number: int) -> dict[str, Any]:
    """The values of trial `number`: a function of (seed, number, key), each key drawn for itself."""
    values: dict[str, Any] = {}
    for key, space in spaces.items():
        rng = np.random.default_rng([seed, number, zlib.crc32(key.encode())])
        if space.kind == "choice":
            values[key] = space.values[int(rng.integers(len(space.values)))]
            continue
        low, high = space.values
        if space.kind == "int":
            values[key] = int(rng.integers(low, high, endpoint=True))
        elif space.kind == "uniform":
            values[key] = float(rng.uniform(low, high))
        else:
            values[key] = min(max(math.exp(rng.uniform(math.log(low), math.log(high))), low), high)
    return values
