"""The errors a user can mend. The command line prints each as one line and exits with 2; everything else is a bug."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class JaxftError(ValueError):
    """Something the user gave does not fit. The message says what was expected, what was found and what to do."""


class SaveError(RuntimeError):
    """Something could not be written (disk full, read-only folder). What was saved before stays whole."""


def near(name: str, options: Iterable[str], *, most: int = 3) -> str:
    """Returns `" (did you mean 'a' or 'b'?)"` for the options that look like `name`, or `""` where none does."""
    options = list(options)
    lowered = {option.lower(): option for option in options}
    found = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=most, cutoff=0.5)]
    return f" (did you mean {' or '.join(repr(match) for match in found)}?)" if found else ""
