"""Headers of tar files are read as Python's tarfile reads them, in every format."""

import io
import shutil
import subprocess
import tarfile

import numpy as np
import pytest

from jaxft.data.tar import members, read_member
from jaxft.errors import JaxftError

NAMES = [
    "a.png",
    "folder/b.jpg",
    "é/ü ñ.cls",
    f"{'long ' * 40}/c.png",
    f"{'x' * 120}/{'y' * 90}.png",
    f"{'d/' * 60}e.txt",
    "empty.txt",
]


def write(file, kind, names=NAMES):
    """A tar of one format with a file of each name, and a folder."""
    rng = np.random.default_rng(0)
    contents = {name: b"" if name == "empty.txt" else rng.bytes(int(rng.integers(1, 3000))) for name in names}
    with tarfile.open(file, "w", format=kind) as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1.5 if kind == tarfile.PAX_FORMAT else 1
            archive.addfile(info, io.BytesIO(content))
    return contents


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT], ids=["gnu", "pax", "ustar"])
def test_every_member_is_where_tarfile_finds_it(kind, tmp_path):
    names = (
        NAMES if kind != tarfile.USTAR_FORMAT else [name for name in NAMES if len(name) < 100 or name.startswith(("x", "d"))]
    )
    contents = write(tmp_path / "a.tar", kind, names)
    found = members(tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as archive:
        wanted = [(member.name, member.offset_data, member.size) for member in archive if member.isreg()]
    assert [(member.name, member.offset, member.size) for member in found] == wanted
    assert {member.name: read_member(tmp_path / "a.tar", member.offset, member.size) for member in found} == contents


@pytest.mark.skipif(shutil.which("tar") is None, reason="there is no tar program")
@pytest.mark.parametrize("kind", ["v7", "oldgnu", "gnu", "ustar", "pax"])
def test_archives_of_the_tar_program_are_read(kind, tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for number in range(5):
        (tmp_path / "in" / "deep" / f"{number}.png").write_bytes(bytes([number]) * number * 300)
    subprocess.run(["tar", f"--format={kind}", "-cf", tmp_path / "a.tar", "-C", tmp_path / "in", "."], check=True)
    found = {member.name: read_member(tmp_path / "a.tar", member.offset, member.size) for member in members(tmp_path / "a.tar")}
    assert found == {f"./deep/{number}.png": bytes([number]) * number * 300 for number in range(5)}


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_flipped_bit_in_any_header_is_found_or_changes_nothing_that_is_read(kind, tmp_path):
    write(tmp_path / "a.tar", kind, ["one.png", "two.png"])
    whole = (tmp_path / "a.tar").read_bytes()
    right = members(tmp_path / "a.tar")
    refused = 0
    for start in {member.offset - 512 for member in right}:
        for place in range(start, start + 512, 7):
            (tmp_path / "a.tar").write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            try:
                assert members(tmp_path / "a.tar") == right
            except JaxftError:
                refused += 1
    assert refused > 100


def test_damaged_pax_headers_are_named(tmp_path):
    write(tmp_path / "a.tar", tarfile.PAX_FORMAT, ["é.png"])
    whole = (tmp_path / "a.tar").read_bytes()
    place = whole.index(b"path=")
    for change in (b"99 ", b"xx ", b"0 0"):
        (tmp_path / "a.tar").write_bytes(whole[: place - 3] + change + whole[place:])
        with pytest.raises(JaxftError, match=r"a\.tar' is damaged: its pax header at byte"):
            members(tmp_path / "a.tar")


def test_sparse_files_and_symbolic_links_are_refused(tmp_path):
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.GNUTYPE_SPARSE):
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            info = tarfile.TarInfo("b.png")
            info.type, info.linkname = kind, "a.png"
            archive.addfile(info)
        with pytest.raises(JaxftError, match=r"'b\.png' is a link or a sparse file"):
            members(tmp_path / "a.tar")


def test_sizes_beyond_eight_gigabytes_are_understood_and_found_to_be_cut_short(tmp_path):
    info = tarfile.TarInfo("large.png")
    info.size = 9 << 30
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        (tmp_path / "a.tar").write_bytes(info.tobuf(kind) + bytes(1024))
        with pytest.raises(JaxftError, match=r"is cut short: 'large\.png' ends at byte 9,663,6"):
            members(tmp_path / "a.tar")
