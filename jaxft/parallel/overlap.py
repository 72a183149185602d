"""Keeping the device at work while the host reads what it has made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def one_late(items: Iterable[Item]) -> Iterator[Item]:
    """Gives each item when the one after it has been made.

    JAX dispatches asynchronously: where making an item starts work on the device, and reading it waits for that work, the
    device has the next item's to do meanwhile.
    """
    before: list[Item] = []
    for item in items:
        yield from before
        before = [item]
    yield from before
