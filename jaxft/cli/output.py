"""Files that commands write besides what they print."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from jaxft.cli.config import UsageError


def check_folder(file: str | None) -> None:
    """Finds before minutes of work what cannot be written after them."""
    if file and not Path(file).absolute().parent.is_dir():
        raise UsageError(f"cannot write {file}: no folder '{Path(file).absolute().parent}'")


def write(file: str, text: str) -> None:
    """Writes a text where the user asked for it."""
    try:
        Path(file).write_text(text)
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}") from error


class Told(Protocol):
    """What a command found: text for a person, JSON for a program."""

    def to_json(self) -> str: ...


def show(found: Told, json: str | None) -> None:
    """Prints what was found, or its JSON where `json` is "-"; another `json` is a file that gets it besides."""
    print(found.to_json() if json == "-" else found, flush=True)
    if json and json != "-":
        write(json, found.to_json())
