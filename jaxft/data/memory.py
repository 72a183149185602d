"""How much memory pictures may take while they are decoded, over all threads."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

#: Bytes that may be in use for decoding at one time. Eight threads decode photographs of 12 million pixels side by side.
MAX_BYTES = 2 << 30
_turn = threading.Lock()
_changed = threading.Condition()
_held = 0


@contextlib.contextmanager
def held(size: int) -> Iterator[None]:
    """Waits until `size` bytes are free of `MAX_BYTES`, and holds them. What is larger than all of it is let in alone.

    Not to be nested: a thread that holds some could wait for itself.
    """
    global _held
    # One thread waits for room, the others behind it: small pictures do not pass a large one for ever.
    with _turn, _changed:
        _changed.wait_for(lambda: not _held or _held + size <= MAX_BYTES)
        _held += size
    try:
        yield
    finally:
        with _changed:
            _held -= size
            _changed.notify()
