"""Zip archives whose members are stored, not compressed, as views of the file: what torch and `numpy.savez` write.

Stricter than `zipfile`, which also takes archives behind other data, and whose time and memory for a directory of a million
members no limit bounds. https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, sections 4.3 and 4.5.3.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from jaxft.weights.limits import Limits, UnsafeCheckpoint

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MAX_COMMENT = (1 << 16) - 1
_FULL = (1 << 32) - 1
_ENCRYPTED = 1
#: Prices of a member: steps, and bytes beside its name.
_STEPS, _MEMORY = 12, 600


class Member(NamedTuple):
    """An entry of the central directory."""

    name: str
    offset: int  # of its local header
    size: int
    stored: bool
    crc: int


def directory(data: memoryview, limits: Limits) -> dict[str, Member]:
    """The members of an archive by name, in the directory's order; where they lie is not checked yet.

    Raises:
      UnsafeCheckpoint: no whole archive, two members of one name, or too many for the file's limits.
    """
    try:
        count, at, end = _end(data)
        found: dict[str, Member] = {}
        for _ in range(count):
            member, at = _entry(data, at, end, limits)
            if member.name in found:
                raise UnsafeCheckpoint("the archive has two members of one name")
            found[member.name] = member
    except (struct.error, OverflowError, UnicodeError) as error:
        raise _damaged(str(error)[:60]) from error
    if at != end:
        raise _damaged("its directory is not of the size it says")
    return found


def contents(data: memoryview, members: dict[str, Member]) -> dict[str, memoryview]:
    """The bytes of each member, in the order of the file.

    Raises:
      UnsafeCheckpoint: compressed or encrypted members, or members that overlap or reach out of the file.
    """
    if not all(member.stored for member in members.values()):
        raise UnsafeCheckpoint("an archive with compressed or encrypted members is no torch file")
    found, end = {}, 0
    for member in sorted(members.values(), key=lambda member: member.offset):
        if member.offset < end:
            raise UnsafeCheckpoint("members of the archive overlap")
        if member.offset + _LOCAL.size > len(data):
            raise UnsafeCheckpoint("the archive is cut short")
        header = _LOCAL.unpack_from(data, member.offset)
        start = member.offset + _LOCAL.size + header[9] + header[10]
        name = member.name.encode()
        if header[0] != b"PK\x03\x04" or data[member.offset + _LOCAL.size :][: header[9]] != name:
            raise _damaged(f"{member.name[:60]!r} is not where the directory says")
        end = start + member.size
        if end > len(data):
            raise UnsafeCheckpoint("the archive is cut short")
        found[member.name] = data[start:end]
    return found


def whole(member: Member, content: memoryview) -> memoryview:
    """The content, once its checksum is found right.

    Raises:
      UnsafeCheckpoint: it is not.
    """
    if zlib.crc32(content) != member.crc:
        raise UnsafeCheckpoint(f"{member.name[:60]} is damaged (its checksum is another)")
    return content


def _damaged(reason: str) -> UnsafeCheckpoint:
    return UnsafeCheckpoint(f"the zip archive is damaged or cut short ({reason})")


def _end(data: memoryview) -> tuple[int, int, int]:
    """(number of members, where the directory starts, where it ends)."""
    start = max(0, len(data) - _END.size - _MAX_COMMENT)
    place = data[start:].tobytes().rfind(b"PK\x05\x06")
    if place < 0:
        raise _damaged("it has no directory")
    place += start
    _, disk, first, here, count, size, offset, comment = _END.unpack_from(data, place)
    if place + _END.size + comment != len(data):
        raise _damaged("it does not end with its directory")
    end = place
    if place >= _LOCATOR.size and data[place - _LOCATOR.size :][:4] == b"PK\x06\x07":
        _, disk, end, disks = _LOCATOR.unpack_from(data, place - _LOCATOR.size)
        magic, _, _, _, _, first, here, count, size, offset = _END64.unpack_from(data, end)
        if magic != b"PK\x06\x06" or disks > 1:
            raise _damaged("its second directory is missing")
    if disk or first or here != count:
        raise _damaged("it is one of several parts")
    if offset + size > min(end, place):
        raise _damaged("its directory does not fit")
    return count, offset, offset + size


def _entry(data: memoryview, at: int, end: int, limits: Limits) -> tuple[Member, int]:
    if at + _CENTRAL.size > end:
        raise _damaged("its directory ends too early")
    header = _CENTRAL.unpack_from(data, at)
    magic, flags, method, crc, packed, size = header[0], header[3], header[4], *header[7:10]
    name_size, extra_size, comment_size, offset = *header[10:13], header[16]
    if magic != b"PK\x01\x02":
        raise _damaged("its directory is no such")
    at += _CENTRAL.size
    following = at + name_size + extra_size + comment_size
    if following > end:
        raise _damaged("its directory ends too early")
    limits.spend(_STEPS + (name_size >> 6), _MEMORY + 4 * name_size)
    if _FULL in (size, packed, offset):
        size, packed, offset = _wide(data[at + name_size :][:extra_size], size, packed, offset)
    stored = method == 0 and size == packed and not flags & _ENCRYPTED
    return Member(str(data[at : at + name_size], "utf-8"), offset, size, stored, crc), following


def _wide(extra: memoryview, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """Sizes beyond 32 bits stand in the extra field of kind 1, those only that do not fit, in this order."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            field, place, found = extra[at + 4 :][:length], 0, []
            for number in (size, packed, offset):
                if number == _FULL:
                    number = struct.unpack_from("<Q", field, place)[0]
                    place += 8
                found.append(number)
            return found[0], found[1], found[2]
        at += 4 + length
    raise _damaged("a member has no size")
