"""From what shards and objects say of their examples to labels and class names."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxft.data.tables import check_shares
from jaxft.errors import JaxftError

Where = Callable[[int], str]
Targets = tuple[np.ndarray, tuple[str, ...]]


def read_targets(values: Sequence[Any], task: str, where: Where) -> Targets:
    """Labels and class names of the values that stand with the examples.

    Args:
      values: one an example. Classes are numbers from 0, or names; several labels a list of either, or names in a text,
        separated by `;`; soft labels a list of shares, or name -> share; of a regression, a number.
      task: see `open_data`.
      where: the position of an example -> how an error names it.

    Raises:
      JaxftError: a value of another kind, numbers beside names, one class only.
    """
    if task == "regression":
        return np.array([_number(value, row, where) for row, value in enumerate(values)], np.float32), ("value",)
    if task == "soft":
        return _shares(values, where)
    several = [_classes(value, task, row, where) for row, value in enumerate(values)]
    names, number_of = _names(several, where)
    if task == "classify" and len(names) < 2:
        raise JaxftError(f"{where(0)} and all others are of one class ('{names[0]}'): there is nothing to tell apart")
    if task == "classify":
        return np.array([number_of[found[0]] for found in several], np.int32), names
    labels = np.zeros((len(values), len(names)), np.float32)
    for row, found in enumerate(several):
        labels[row, [number_of[part] for part in found]] = 1
    return labels, names


def _number(value: Any, row: int, where: Where) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise JaxftError(f"{where(row)}: the label of a regression must be a number, not {_short(value)}") from error
    if not math.isfinite(number):
        raise JaxftError(f"{where(row)}: the label of a regression must be a finite number, not {_short(value)}")
    return number


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _classes(value: Any, task: str, row: int, where: Where) -> list[int | str]:
    parts = value
    if task == "multilabel" and isinstance(value, str):
        parts = [part.strip() for part in value.split(";") if part.strip()]
    elif task == "classify":
        parts = [value.strip() if isinstance(value, str) else value]
    wanted = "a class number from 0 or a name" if task == "classify" else "a list of class numbers or names"
    if not isinstance(parts, list) or not all(
        (isinstance(part, str) and part) or (isinstance(part, int) and not isinstance(part, bool) and part >= 0)
        for part in parts
    ):
        raise JaxftError(f"{where(row)}: the label of the task '{task}' must be {wanted}, not {_short(value)}")
    return parts


def _names(several: Sequence[list[int | str]], where: Where) -> tuple[tuple[str, ...], dict[int | str, int]]:
    """Class names in order and the number of each: texts are sorted, numbers stay what they are."""
    found = {part for parts in several for part in parts}
    if not found:
        raise JaxftError(f"{where(0)} has no label, nor has any other")
    numbers = sorted(part for part in found if isinstance(part, int))
    texts = sorted(part for part in found if isinstance(part, str))
    if numbers and texts:
        row = next(row for row, parts in enumerate(several) if texts[0] in parts)
        raise JaxftError(f"{where(row)}: labels are names here ('{texts[0]}') and numbers elsewhere ({numbers[0]})")
    if texts:
        return tuple(texts), {text: number for number, text in enumerate(texts)}
    if numbers[-1] >= 1_000_000:
        raise JaxftError(f"the label {numbers[-1]} is no class number: classes are numbered from 0")
    return tuple(str(number) for number in range(numbers[-1] + 1)), {number: number for number in numbers}


def _shares(values: Sequence[Any], where: Where) -> Targets:
    names: tuple[str, ...] = ()
    if all(isinstance(value, dict) for value in values):
        names = tuple(sorted({str(name) for value in values for name in value}))
        values = [[value.get(name, 0) for name in names] for value in values]
    lengths = [len(value) if isinstance(value, list | tuple | np.ndarray) else -1 for value in values]
    for row, length in enumerate(lengths):
        if length < 2 or length != lengths[0]:
            raise JaxftError(
                f"{where(row)}: soft labels must be a list with the share of each class"
                + (f", {lengths[0]} as of the first" if length > 0 else "")
                + f", not {_short(values[row])}"
            )
    try:
        shares = np.array(values, np.float64)
    except (TypeError, ValueError) as error:
        raise JaxftError(f"soft labels must be numbers ({error})") from error
    check_shares(shares, where)
    return shares.astype(np.float32), names or tuple(str(number) for number in range(lengths[0]))
