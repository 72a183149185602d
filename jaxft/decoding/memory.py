"""How much memory pictures may take while they are decoded, over all threads of a process."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

#: Bytes that may be in use for decoding at one time. Eight threads decode photographs of 12 million pixels side by side.
MAX_BYTES = 2 << 30
#: Whether a picture that needs more than `MAX_BYTES` is refused, and not let in alone: in processes that share an allowance.
refusing = False
_turn = threading.Lock()
_changed = threading.Condition()
_held = 0


class TooMuch(Exception):
    """A picture that this process may not decode: another one does."""


@contextlib.contextmanager
def held(size: int) -> Iterator[None]:
    """Waits until `size` bytes are free of `MAX_BYTES`, and holds them. What is larger than all of it is let in alone.

    Not to be nested: a thread that holds some could wait for itself.

    Raises:
      TooMuch: where this process is `refusing`.
    """
    global _held
    if refusing and size > MAX_BYTES:
        raise TooMuch
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
