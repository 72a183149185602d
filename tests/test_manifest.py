"""A folder's list of hashes: sha256sum reads it, and whatever was damaged since is named."""

import hashlib
import os
import shutil
import subprocess

import numpy as np
import pytest

from jaxft.manifest import NAME, find_damage, write_manifest
from jaxft.paths import open_path

FILES = {
    "clock/_METADATA": b'{"step": 3}',
    "params/ocdbt.process_0/d/0a1b": bytes(range(256)) * 40,
    "params/manifest.ocdbt": b"\x0c\xdb\x3a\x2a",
    "meta/metadata": b"",
    "with  two spaces.txt": "ümlaut\n".encode(),
}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "7"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    write_manifest(folder)
    return folder


def test_the_list_has_every_file_with_its_sha256_and_the_hash_of_itself(folder):
    *lines, last = (folder / NAME).read_text().splitlines()
    expected = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    assert lines == [f"{expected[name]}  {name}" for name in sorted(FILES)]
    listed = "".join(line + "\n" for line in lines)
    assert last == f"# all of the above: {hashlib.sha256(listed.encode()).hexdigest()}"
    assert find_damage(folder) == ""
    assert sorted(path.name for path in folder.iterdir()) == sorted({name.split("/")[0] for name in FILES} | {NAME})


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="this system has no sha256sum")
def test_sha256sum_accepts_the_list_and_finds_the_same_damage(folder):
    def check():
        return subprocess.run(["sha256sum", "-c", NAME], cwd=folder, capture_output=True, text=True)

    done = check()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{name}: OK" for name in sorted(FILES)]
    (folder / "params/manifest.ocdbt").write_bytes(b"\x0c\xdb\x3a\x2b")
    done = check()
    assert done.returncode == 1
    assert "params/manifest.ocdbt: FAILED" in done.stdout
    assert find_damage(folder) == "params/manifest.ocdbt is not what was written"


@pytest.mark.parametrize("name", [name for name, content in FILES.items() if content])
def test_one_flipped_bit_anywhere_in_any_file_is_named(folder, name):
    content = FILES[name]
    bits = range(8 * len(content)) if len(content) < 100 else np.random.default_rng(0).integers(0, 8 * len(content), 60)
    for bit in bits:
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        (folder / name).write_bytes(flipped)
        assert find_damage(folder) == f"{name} is not what was written"
    (folder / name).write_bytes(content)
    assert find_damage(folder) == ""


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_short_or_grown_is_named(folder, name):
    content = FILES[name]
    for changed in ([content[:-1], content[: len(content) // 2], b""] if content else []) + [content + b"\0"]:
        (folder / name).write_bytes(changed)
        assert find_damage(folder) == f"{name} is not what was written"


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_gone_is_named(folder, name):
    (folder / name).unlink()
    assert find_damage(folder) == f"{name} is missing"


def test_a_file_that_does_not_belong_to_it_is_named_unless_it_may_come_later(folder):
    (folder / "params" / "stray").write_bytes(b"x")
    assert find_damage(folder) == "params/stray does not belong to it"
    assert find_damage(folder, later=("params/stray",)) == ""
    (folder / "empty folder").mkdir()
    assert find_damage(folder, later=("params/stray",)) == ""


def test_two_files_that_changed_places_are_named(folder):
    one, other = folder / "clock/_METADATA", folder / "params/manifest.ocdbt"
    one.rename(folder / "aside")
    other.rename(one)
    (folder / "aside").rename(other)
    assert find_damage(folder) == "clock/_METADATA is not what was written; params/manifest.ocdbt is not what was written"


def test_a_file_that_cannot_be_read_is_named(folder):
    (folder / "meta/metadata").unlink()
    (folder / "meta/metadata").symlink_to("nowhere")
    assert find_damage(folder) == "meta/metadata cannot be read (No such file or directory)"


def test_of_much_damage_three_are_named_and_the_rest_are_counted(folder):
    for name in FILES:
        (folder / name).unlink()
    (folder / "other").write_bytes(b"")
    first = "; ".join(f"{name} is missing" for name in sorted(FILES)[:3])
    assert find_damage(folder) == f"{first} and 3 more"


def test_one_flipped_bit_anywhere_in_the_list_itself_is_said(folder):
    content = (folder / NAME).read_bytes()
    for bit in range(0, 8 * len(content), 7):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        (folder / NAME).write_bytes(flipped)
        assert find_damage(folder).startswith(f"its {NAME} is damaged ("), bit
        assert "\n" not in find_damage(folder)


def test_a_list_cut_short_anywhere_or_grown_is_said(folder):
    content = (folder / NAME).read_bytes()
    for length in range(len(content)):
        (folder / NAME).write_bytes(content[:length])
        assert find_damage(folder).startswith(f"its {NAME} is damaged ("), length
    for more in (b"\n", b"x", content):
        (folder / NAME).write_bytes(content + more)
        assert find_damage(folder).startswith(f"its {NAME} is damaged ("), more


def test_a_folder_without_a_list_was_never_completed(folder, tmp_path):
    (folder / NAME).unlink()
    assert find_damage(folder) == f"it has no {NAME}: it was never completed"
    assert find_damage(tmp_path / "nowhere") == f"it has no {NAME}: it was never completed"


def test_a_list_that_is_a_folder_is_said(folder):
    (folder / NAME).unlink()
    (folder / NAME).mkdir()
    assert find_damage(folder).startswith(f"its {NAME} is damaged (")


def test_files_that_were_left_out_come_onto_the_list_when_it_is_written_again(folder):
    (folder / "late").write_bytes(b"1")
    write_manifest(folder, leave_out=("late",))
    assert find_damage(folder) == "late does not belong to it"
    assert find_damage(folder, later=("late",)) == ""
    (folder / "late").write_bytes(b"2")
    write_manifest(folder)
    assert find_damage(folder) == ""
    (folder / "late").write_bytes(b"1")
    assert find_damage(folder, later=("late",)) == "late is not what was written"


def test_a_list_that_is_written_again_keeps_the_hashes_it_has(folder):
    # Else what was damaged between the two would be called whole.
    (folder / "clock/_METADATA").write_bytes(b'{"step": 4}')
    (folder / "late").write_bytes(b"1")
    write_manifest(folder)
    assert find_damage(folder) == "clock/_METADATA is not what was written"


def test_what_cannot_be_listed_is_an_error_and_leaves_the_list_before(folder):
    before = (folder / NAME).read_bytes()
    (folder / "broken").symlink_to("nowhere")
    with pytest.raises(OSError, match="No such file or directory"):
        write_manifest(folder)
    assert (folder / NAME).read_bytes() == before
    assert sorted(os.listdir(folder)) == sorted({name.split("/")[0] for name in FILES} | {NAME, "broken"})


def test_in_a_bucket_the_list_is_the_same_and_finds_the_same_damage(bucket, folder):
    remote = open_path("gs://bucket/run/checkpoints/7")
    for name, content in FILES.items():
        bucket.write(f"run/checkpoints/7/{name}", content)
    bucket.write("run/checkpoints/70/other", b"x")
    write_manifest(remote)
    assert bucket.read(f"run/checkpoints/7/{NAME}") == (folder / NAME).read_bytes()
    assert find_damage(remote) == ""
    bucket.write("run/checkpoints/7/params/manifest.ocdbt", b"\x0c\xdb\x3a\x2b")
    bucket.write("run/checkpoints/7/stray", b"")
    del bucket.objects["run/checkpoints/7/meta/metadata"]
    assert find_damage(remote) == (
        "meta/metadata is missing; stray does not belong to it; params/manifest.ocdbt is not what was written"
    )
    assert find_damage(remote.parent / "8") == f"it has no {NAME}: it was never completed"


@pytest.mark.parametrize("object_name", [NAME, "params/manifest.ocdbt", ""])
def test_a_bucket_that_cannot_be_reached_is_no_damage(bucket, object_name):
    remote = open_path("gs://bucket/7")
    for name, content in FILES.items():
        bucket.write(f"7/{name}", content)
    write_manifest(remote)
    bucket.fault = lambda method, name: 403 if name.rstrip("/").endswith(object_name or "7") else 0
    with pytest.raises(OSError, match="the bucket says: Forbidden"):
        find_damage(remote)
