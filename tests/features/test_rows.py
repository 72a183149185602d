"""What is kept comes back, what is not whole is known, and a full disk is one line."""

import json
import types

import ml_dtypes
import numpy as np
import pytest

from jaxft.errors import SaveError
from jaxft.features import Rows, rows

VALUES = np.random.default_rng(0).normal(size=(11, 2, 3)).astype(np.float32)


def opened(folder, *, about=None, dtype="float32", block=4):
    return Rows(folder, "train", about or {"weights": "abc"}, shape=VALUES.shape, dtype=dtype, block=block)


def filled(folder, blocks=(0, 1, 2), **options):
    found = opened(folder, **options)
    found.reserve()
    for block in blocks:
        found.write(block, VALUES[found.rows_of(block)])
    found.save()
    return found


@pytest.mark.parametrize(("dtype", "block"), [("float32", 4), ("bfloat16", 4), ("float32", 1), ("float32", 100)])
def test_rows_come_back_in_the_type_they_are_kept_in_and_take_the_room_they_say(tmp_path, dtype, block):
    found = opened(tmp_path / "new", dtype=dtype, block=block)
    assert len(found.missing) == -(-11 // block)
    found = filled(tmp_path / "new", found.missing, dtype=dtype, block=block)
    again = opened(tmp_path / "new", dtype=dtype, block=block)
    assert again.missing == []
    assert again.damaged == 0
    expected = VALUES.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float32)
    assert again.read().dtype == expected.dtype
    np.testing.assert_array_equal(again.read(), expected)
    assert again.path.stat().st_size == again.nbytes == 11 * 6 * expected.dtype.itemsize


def test_a_filling_that_was_cut_short_goes_on_where_it_stopped(tmp_path):
    half = filled(tmp_path, (0, 2))
    half.write(1, VALUES[half.rows_of(1)])  # but killed before it was recorded
    again = opened(tmp_path)
    assert (again.missing, again.damaged) == ([1], 0)
    again.reserve()
    again.write(1, VALUES[4:8])
    again.save()
    np.testing.assert_array_equal(opened(tmp_path).read(), VALUES)


def test_a_file_begun_with_other_blocks_keeps_its_own(tmp_path):
    filled(tmp_path, (0,), block=4)
    again = opened(tmp_path, block=3)
    assert [list(again.rows_of(block)) for block in again.missing] == [[4, 5, 6, 7], [8, 9, 10]]


def test_only_damaged_blocks_are_to_be_computed_again(tmp_path):
    path = filled(tmp_path).path
    data = bytearray(path.read_bytes())
    data[5 * 24] ^= 1
    path.write_bytes(data)
    again = opened(tmp_path)
    assert (again.missing, again.damaged) == ([1], 1)


@pytest.mark.parametrize(("size", "missing"), [(10 * 24, [2]), (4 * 24, [1, 2]), (1, [0, 1, 2]), (0, [0, 1, 2])])
def test_a_file_cut_short_is_noticed_and_mended(tmp_path, size, missing):
    path = filled(tmp_path).path
    path.write_bytes(path.read_bytes()[:size])
    again = opened(tmp_path)
    assert again.missing == missing
    filled(tmp_path, again.missing)
    np.testing.assert_array_equal(opened(tmp_path).read(), VALUES)


def test_a_lost_file_is_computed_again(tmp_path):
    filled(tmp_path).path.unlink()
    assert opened(tmp_path).missing == [0, 1, 2]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"about": 1}', '{"about": {}, "block": 0, "crc32": []}', "\xff"])
def test_a_broken_record_is_no_record(tmp_path, text):
    record = filled(tmp_path).path.with_suffix(".json")
    record.write_text(text, encoding="latin-1")
    assert opened(tmp_path).missing == [0, 1, 2]


def test_rows_of_another_origin_are_not_used_and_stay(tmp_path):
    path = filled(tmp_path).path
    other = opened(tmp_path, about={"weights": "abd"})
    assert other.missing == [0, 1, 2]
    assert other.path != path
    assert opened(tmp_path, dtype="bfloat16").path != path
    # Not even under a wrong name.
    other.path.write_bytes(path.read_bytes())
    other.path.with_suffix(".json").write_text(path.with_suffix(".json").read_text())
    assert opened(tmp_path, about={"weights": "abd"}).missing == [0, 1, 2]
    assert json.loads(path.with_suffix(".json").read_text())["about"]["weights"] == "abc"
    assert opened(tmp_path).missing == []


def test_a_disk_without_room_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(rows.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=100))
    with pytest.raises(SaveError, match=r"is full \(needs 0.0 MB, has 0.0 MB\): .*start it again, or set fewer config.feat"):
        opened(tmp_path).reserve()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_on_the_way_loses_nothing(tmp_path):
    found = filled(tmp_path, (0,))
    kept = found.path.rename(tmp_path / "kept")
    found.path.symlink_to("/dev/full")
    with pytest.raises(SaveError, match="No space left on device.*the features were not kept"):
        found.write(1, VALUES[4:8])
    found.path.unlink()
    kept.rename(found.path)
    assert opened(tmp_path).missing == [1, 2]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="the features cannot be kept in .*file/features: Not a directory"):
        opened(tmp_path / "file" / "features").reserve()
