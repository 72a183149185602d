"""Splits of ours, written down, read again, refused where they do not fit; and what must not be in two of them."""

import json

import numpy as np
import pytest

from jaxft.data import Arrays, Files
from jaxft.data.splits import duplicates_across, groups_across, read_manifest, write_manifest
from jaxft.errors import JaxftError

SETTINGS = {"val_fraction": 0.1, "test_fraction": 0.2, "split_seed": 3}


def named(*names):
    return Arrays(np.zeros((len(names), 2, 2), np.uint8), np.zeros(len(names), np.int32), list(names))


# The written list.


def test_what_was_written_is_read_again(tmp_path):
    splits = {"train": named("d", "a"), "val": named("c"), "test": named("b", "é/ü 1.png")}
    path = tmp_path / "new folder" / "splits.json"
    write_manifest(path, splits, SETTINGS)
    everything = named("a", "b", "c", "d", "é/ü 1.png")
    found = read_manifest(path, everything, SETTINGS)
    assert {split: numbers.tolist() for split, numbers in found.items()} == {
        "train": [3, 0],
        "val": [2],
        "test": [1, 4],
    }
    # The order in which the data are found plays no part.
    again = read_manifest(path, everything.subset([4, 2, 0, 3, 1]), SETTINGS)
    assert again["train"].tolist() == [3, 2]
    assert [path.name for path in path.parent.iterdir()] == ["splits.json"]
    assert json.loads(path.read_text())["splits"]["test"] == ["b", "é/ü 1.png"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a", "b"), r"1 went \(c\)"),
        (("a", "b", "c", "e"), r"1 came \(e\)"),
        (("x", "y"), r"3 went \(a, b, c\); 2 came \(x, y\)"),
        (tuple("abcdefgh"), r"5 came \(d, e, f\)"),
    ],
)
def test_data_that_came_or_went_are_named(names, message, tmp_path):
    write_manifest(tmp_path / "splits.json", {"train": named("a", "b"), "val": named("c")}, SETTINGS)
    with pytest.raises(JaxftError, match=f"the data changed since .*{message}.*remove it to split anew"):
        read_manifest(tmp_path / "splits.json", named(*names), SETTINGS)


@pytest.mark.parametrize("change", [{"split_seed": 4}, {"val_fraction": 0.2}, {"test_fraction": 0.0}])
def test_a_list_of_other_settings_is_refused(change, tmp_path):
    write_manifest(tmp_path / "splits.json", {"train": named("a"), "val": named("b")}, SETTINGS)
    (key,) = change
    with pytest.raises(JaxftError, match=f"was made with .*{SETTINGS[key]}.* now asked for .*{change[key]}.*split anew"):
        read_manifest(tmp_path / "splits.json", named("a", "b"), SETTINGS | change)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"[]",
        b"3",
        b"null",
        b"{}",
        b'{"splits": {"train": ["a"]}}',
        b'{"settings": {}}',
        b'{"settings": {}, "splits": []}',
        b'{"settings": {}, "splits": {"train": 3}}',
        b'{"settings": {}, "splits": {"train": null}}',
    ],
)
def test_a_damaged_list_says_so(content, tmp_path):
    (tmp_path / "splits.json").write_bytes(content)
    with pytest.raises(JaxftError, match=r"splits\.json is damaged .*: remove it to split anew"):
        read_manifest(tmp_path / "splits.json", named("a"), {})


def test_a_list_cut_short_anywhere_is_damaged(tmp_path):
    path = tmp_path / "splits.json"
    write_manifest(path, {"train": named("a", "b"), "val": named("c")}, SETTINGS)
    whole = path.read_bytes()
    for length in range(len(whole) - 2):
        path.write_bytes(whole[:length])
        with pytest.raises(JaxftError, match="is damaged"):
            read_manifest(path, named("a", "b", "c"), SETTINGS)


def test_a_list_that_holds_no_names_is_data_that_went(tmp_path):
    (tmp_path / "splits.json").write_text('{"settings": {}, "splits": {"train": [1, ["a"], null]}}')
    with pytest.raises(JaxftError, match="the data changed"):
        read_manifest(tmp_path / "splits.json", named("a"), {})


def test_a_list_that_cannot_be_written_says_why(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(JaxftError, match="cannot write the list of splits"):
        write_manifest(tmp_path / "file" / "splits.json", {"train": named("a")}, SETTINGS)


# The same picture on both sides.


def test_pictures_in_two_splits_are_reported_by_their_bytes(tmp_path):
    for name, content in {"a.png": "1", "b.png": "2", "c.png": "3", "d.png": "1", "e.png": "2", "f.png": "4"}.items():
        (tmp_path / name).write_text(content)

    def files(*names):
        return Files(tmp_path, list(names), np.zeros(len(names), np.int32))

    assert duplicates_across({"train": files("a.png", "b.png"), "val": files("c.png"), "test": files("f.png")}) == []
    (note,) = duplicates_across({"train": files("a.png", "b.png"), "test": files("d.png", "f.png")})
    assert note == "1 pictures are in train and in test (a.png = d.png): figures on test will flatter"
    notes = duplicates_across({"train": files("a.png", "b.png"), "val": files("d.png", "e.png"), "test": files("e.png")})
    assert [note.split(" (")[0] for note in notes] == [
        "2 pictures are in train and in val",
        "1 pictures are in train and in test",
        "1 pictures are in val and in test",
    ]
    # Twice in one split is no leak.
    assert duplicates_across({"train": files("a.png", "d.png"), "val": files("b.png", "e.png")}) == []


def test_groups_in_two_splits_are_named():
    def split(*groups):
        return Arrays(np.zeros((len(groups), 2, 2), np.uint8), np.zeros(len(groups), np.int32), list(groups), list(groups))

    assert groups_across({"train": split("a", ""), "val": split("b", "")}) == []
    notes = groups_across({"train": split("b", "a", "c"), "val": split("c", "a"), "test": named("a")})
    assert notes == ["2 groups are in train and in val (a): figures on val will flatter"]
