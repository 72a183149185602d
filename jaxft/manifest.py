"""A folder's list of files with their hashes: what is damaged is named before it is read.

The list is a file `MANIFEST` in the format of sha256sum (`sha256sum -c MANIFEST` checks it by hand), its last line the hash of
the lines before. Orbax and tensorstore find few flipped bits themselves.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from pathlib import Path

from jaxft.files import write_whole
from jaxft.paths import UNREACHABLE, is_remote, list_files, reaching

NAME = "MANIFEST"
_LAST = "# all of the above: "


def write_manifest(folder: Path, *, leave_out: Collection[str] = ()) -> None:
    """Lists all files of a folder with their sha256, and brings them to the disk.

    Args:
      folder: files that its list has already keep their hash.
      leave_out: files that may still change.

    Raises:
      OSError: a file cannot be read, or the list not be written.
    """
    try:
        known = _read(folder)
    except FileNotFoundError:
        known = {}
    names = [name for name in list_files(folder) if name != NAME and name not in leave_out]
    listed = "".join(f"{known.get(name) or _sha256(folder / name, sync=True)}  {name}\n" for name in names)
    write_whole(folder / NAME, f"{listed}{_LAST}{hashlib.sha256(listed.encode()).hexdigest()}\n")


def find_damage(folder: Path, *, later: Collection[str] = ()) -> str:
    """What is wrong with a folder by its list, as one line; "" where it is as it was written.

    Args:
      folder: with a list.
      later: files that may have come after the list was written.

    Raises:
      OSError: the folder lies in a bucket that cannot be reached: that is no damage.
    """
    try:
        wanted = _read(folder)
    except FileNotFoundError:
        return f"it has no {NAME}: it was never completed"
    except (OSError, ValueError) as error:
        _must_be_reached(error)
        return f"its {NAME} is damaged ({error})"
    found = set(list_files(folder)) - {NAME}
    problems = [f"{name} is missing" for name in wanted if name not in found]
    problems += [f"{name} does not belong to it" for name in sorted(found) if name not in wanted and name not in later]
    for name in wanted:
        if name in found:
            try:
                if _sha256(folder / name) != wanted[name]:
                    problems.append(f"{name} is not what was written")
            except OSError as error:
                _must_be_reached(error)
                problems.append(f"{name} cannot be read ({error.strerror})")
    more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
    return "; ".join(problems[:3]) + more


def _read(folder: Path) -> dict[str, str]:
    """The files of a list, and their hashes.

    Raises:
      ValueError: the list is not what was written.
    """
    with reaching(folder):
        content = (folder / NAME).read_bytes()
    listed, mark, digest = content.decode().rpartition(_LAST)
    if not mark or digest != hashlib.sha256(listed.encode()).hexdigest() + "\n":
        raise ValueError("its own hash is another")
    return {name: sha256 for sha256, _, name in (line.partition("  ") for line in listed.splitlines())}


def _must_be_reached(error: Exception) -> None:
    if isinstance(error, OSError) and error.errno == UNREACHABLE:
        raise error


def _sha256(path: Path, *, sync: bool = False) -> str:
    with reaching(path), path.open("rb") as file:
        if sync and not is_remote(path):
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()
