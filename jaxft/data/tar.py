"""Where the members of a tar file lie: headers are read once, and what they say is checked against the file."""

from __future__ import annotations

import dataclasses
import os
import tarfile
from pathlib import Path

from jaxft.errors import JaxftError

_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_BLOCK = 512


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """A file inside a tar."""

    name: str
    offset: int
    size: int


def members(file: Path) -> list[Member]:
    """The files inside a tar, in order.

    Raises:
      JaxftError: a compressed tar, one that is cut short or damaged, data behind its end, a link.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            start = opened.read(8)
            packed = next((name for magic, name in _PACKED.items() if start.startswith(magic)), None)
            if packed:
                raise JaxftError(
                    f"'{file}' is compressed ({packed}): members of it cannot be reached one by one. Unpack it to a plain .tar "
                    "(pictures are compressed already)"
                )
            opened.seek(0)
            with tarfile.open(fileobj=opened, mode="r:") as archive:
                found, end = _walk(archive, file, size)
            _check_end(opened, file, end, size)
    except tarfile.TarError as error:
        raise JaxftError(f"'{file}' is cut short, or no tar file ({error})") from error
    except OSError as error:
        raise JaxftError(f"cannot read '{file}': {error.strerror or error}") from error
    return found


def _walk(archive: tarfile.TarFile, file: Path, size: int) -> tuple[list[Member], int]:
    found: list[Member] = []
    end = 0
    while (member := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]  # it would keep them all
        end = member.offset_data + (-(-member.size // _BLOCK) * _BLOCK if member.isreg() else 0)
        if member.offset_data + (member.size if member.isreg() else 0) > size:
            raise JaxftError(f"'{file}' is cut short: '{member.name}' ends at byte {end:,}, the file at {size:,}")
        if member.islnk() or member.issym() or member.issparse():
            raise JaxftError(
                f"'{file}': '{member.name}' is a link or a sparse file: pack plain files (tar --dereference --hard-dereference)"
            )
        if member.isreg():
            found.append(Member(member.name, member.offset_data, member.size))
    return found, end


def _check_end(opened: object, file: Path, end: int, size: int) -> None:
    """A tar ends with blocks of zeros: without them it was cut between two members, with more behind them two were joined."""
    descriptor = opened.fileno()  # type: ignore[attr-defined]
    if os.pread(descriptor, _BLOCK, end) != bytes(_BLOCK):
        raise JaxftError(f"'{file}' is cut short or damaged: there is no end mark behind its last member, at byte {end:,}")
    for place in range(end, size, 1 << 20):
        if os.pread(descriptor, 1 << 20, place).strip(b"\0"):
            raise JaxftError(
                f"'{file}' holds more behind its end mark, at byte {end:,}: were tar files joined? Give them one by one"
            )


def read_member(file: Path, offset: int, size: int) -> bytes:
    """The bytes of a member. No file stays open.

    Raises:
      JaxftError: the file is gone, or became shorter.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            content = os.pread(descriptor, size, offset)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise JaxftError(f"cannot read '{file}': {error.strerror}") from error
    if len(content) != size:
        raise JaxftError(f"'{file}' became shorter: {len(content):,} of {size:,} bytes are there at {offset:,}")
    return content
