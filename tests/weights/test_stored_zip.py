"""Archives of stored members are read as `zipfile` reads them, and no other archive is."""

import io
import struct
import zipfile
import zlib

import pytest

from jaxft.weights.limits import Limits, UnsafeCheckpoint
from jaxft.weights.stored_zip import contents, directory, whole

MEMBERS = {"a/data.pkl": b"pickle", "a/data/0": bytes(1000), "a/empty": b"", "a/漢字": b"named in UTF-8", "b": b"x" * 100}


def archive(comment=b"", **options):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", **options) as made:
        for name, data in MEMBERS.items():
            with made.open(name, "w", force_zip64=len(name) % 2 == 0) as member:
                member.write(data)
        made.comment = comment
    return out.getvalue()


def read(data):
    view, limits = memoryview(data), Limits(len(data))
    members = directory(view, limits)
    found = contents(view, members)
    return {name: whole(member, found[name]).tobytes() for name, member in members.items()}


@pytest.mark.parametrize("comment", [b"", b"a comment", bytes(65535)])
def test_members_are_those_that_were_written(comment):
    assert read(archive(comment)) == MEMBERS


def test_members_are_views_of_the_archive():
    data = memoryview(archive())
    assert all(content.obj is data.obj for content in contents(data, directory(data, Limits(len(data)))).values())


def wide(data):
    """The archive with all sizes and places of its directory in fields of 64 bits, as it has them beyond four gigabytes."""
    end = data.rindex(b"PK\x05\x06")
    count, _, at = struct.unpack_from("<H2L", data, end + 10)
    start, entries, place = at, b"", at
    for _ in range(count):
        fields = struct.unpack_from("<4s6H3L5H2L", data, place)
        packed, full, name_size, extra_size = fields[8], fields[9], fields[10], fields[11]
        name = data[place + 46 : place + 46 + name_size]
        extra = struct.pack("<2HL", 0x4246, 4, 0) + struct.pack("<2H3Q", 1, 24, full, packed, fields[16])
        new = [*fields]
        new[8] = new[9] = new[16] = 0xFFFFFFFF
        new[11] = len(extra)
        entries += struct.pack("<4s6H3L5H2L", *new) + name + extra
        place += 46 + name_size + extra_size
    second = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(entries), start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, start + len(entries), 1)
    last = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return data[:start] + entries + second + locator + last


def test_sizes_and_places_of_64_bits_are_read():
    data = wide(archive())
    with zipfile.ZipFile(io.BytesIO(data)) as made:
        assert {name: made.read(name) for name in made.namelist()} == MEMBERS
    assert read(data) == MEMBERS


def test_a_member_written_before_its_size_was_known_is_read():
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

        def seek(self, *place):
            raise OSError

        def tell(self):
            raise OSError

    out = Pipe()
    with zipfile.ZipFile(out, "w") as made:
        for name, data in MEMBERS.items():
            made.writestr(name, data)
    assert read(out.getvalue()) == MEMBERS


def test_a_compressed_archive_is_listed_and_its_members_are_not_read():
    data = archive(compression=zipfile.ZIP_DEFLATED)
    members = directory(memoryview(data), Limits(len(data)))
    assert {name: member.size for name, member in members.items()} == {name: len(raw) for name, raw in MEMBERS.items()}
    assert [member.crc for member in members.values()] == [zlib.crc32(raw) for raw in MEMBERS.values()]
    with pytest.raises(UnsafeCheckpoint, match="compressed"):
        contents(memoryview(data), members)


def test_an_archive_cut_short_anywhere_is_refused():
    data = archive()
    for length in range(len(data)):
        with pytest.raises(UnsafeCheckpoint):
            read(data[:length])
