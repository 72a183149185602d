"""Splits of ours: a fraction of every class, from a seed; written down, read again, refused where they do not fit."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxft.data import Arrays, Files
from jaxft.data.splits import duplicates_across, read_manifest, stratified, write_manifest
from jaxft.errors import JaxftError

SETTINGS = {"val_fraction": 0.1, "test_fraction": 0.2, "split_seed": 3}


def named(*names):
    return Arrays(np.zeros((len(names), 2, 2), np.uint8), np.zeros(len(names), np.int32), list(names))


# Stratified.


@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    fraction=st.sampled_from([0.01, 0.1, 0.25, 0.5, 0.9, 0.99]),
    seed=st.integers(-5, 5),
)
@settings(deadline=None, derandomize=True, max_examples=100)
def test_every_class_gives_its_fraction_and_keeps_one_on_each_side(counts, fraction, seed):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int32)
    if max(counts) == 1 and fraction <= 0.5:
        with pytest.raises(JaxftError, match="too few to split"):
            stratified(labels, fraction, seed)
        return
    rest, part = stratified(labels, fraction, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([rest, part])), np.arange(len(labels)))
    assert (np.diff(rest) > 0).all()
    assert (np.diff(part) > 0).all()
    for label, count in enumerate(counts):
        given = (labels[part] == label).sum()
        if count >= 2:
            assert given == min(max(round(fraction * count), 1), count - 1)
        else:
            assert given == round(fraction)


def test_the_fraction_of_large_classes_is_exact():
    labels = np.repeat(np.arange(3), [1000, 200, 50]).astype(np.int32)
    _, part = stratified(labels, 0.1, 0)
    np.testing.assert_array_equal(np.bincount(labels[part]), [100, 20, 5])


def test_a_seed_gives_one_split_and_another_seed_another():
    labels = np.repeat(np.arange(3), 30).astype(np.int32)
    parts = [tuple(stratified(labels, 0.2, seed)[1]) for seed in (0, 0, 1, 2, -1)]
    assert parts[0] == parts[1]
    assert len(set(parts)) == 4


def test_the_split_is_the_same_in_every_version():
    # Who splits the same data again, years later, must not train on what was tested on.
    labels = np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 1], np.int32)
    assert stratified(labels, 0.4, 0)[1].tolist() == [0, 2, 3, 5]


@pytest.mark.parametrize("labels", [np.zeros((50, 4), np.float32), np.linspace(0, 1, 50, dtype=np.float32)])
def test_labels_that_are_no_classes_are_split_by_number_alone(labels):
    rest, part = stratified(labels, 0.3, 0)
    assert len(part) == 15
    assert len(rest) == 35
    assert tuple(part) != tuple(range(15))
    np.testing.assert_array_equal(np.sort(np.concatenate([rest, part])), np.arange(50))


def test_a_fraction_of_nothing_takes_nothing():
    rest, part = stratified(np.array([0, 0, 1], np.int32), 0.0, 0)
    assert rest.tolist() == [0, 1, 2]
    assert part.tolist() == []


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 1.5, float("nan")])
def test_a_fraction_outside_zero_to_one_is_refused(fraction):
    with pytest.raises(JaxftError, match=r"must lie in \[0, 1\)"):
        stratified(np.zeros(9, np.int32), fraction, 0)


def test_a_part_that_would_be_empty_is_refused():
    with pytest.raises(JaxftError, match="1 examples are too few to split 10% off"):
        stratified(np.zeros((1, 3), np.float32), 0.1, 0)


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
