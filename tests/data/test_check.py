"""Damaged pictures are found before a run, listed, and left out up to a share."""

import numpy as np
import pytest

from jaxft.data import Files
from jaxft.data.check import drop_bad, find_bad
from jaxft.errors import JaxftError


@pytest.fixture
def mixed(draw):
    """Twelve pictures of three classes; the given ones are made bad: empty, text, cut short or gone."""

    def make(*bad, labels=None):
        names = [f"{number:02d}.png" for number in range(12)]
        root = draw(*names)
        ways = [
            lambda path: path.write_bytes(b""),
            lambda path: path.write_text("not yet"),
            lambda path: path.write_bytes(path.read_bytes()[:50]),
            lambda path: path.unlink(),
        ]
        for turn, number in enumerate(bad):
            ways[turn % 4](root / names[number])
        return Files(root, names, np.arange(12, dtype=np.int32) % 3 if labels is None else labels)

    return make


def test_sound_pictures_are_all_kept(mixed):
    source = mixed()
    assert find_bad(source) == []
    assert drop_bad(source, "train", 0.0) == (source, [])


@pytest.mark.parametrize("threads", [1, 4])
def test_every_damaged_picture_is_found_with_its_reason_in_order(mixed, threads):
    found = find_bad(mixed(2, 9, 5, 11), threads=threads)
    assert [number for number, _ in found] == [2, 5, 9, 11]
    reasons = dict(found)
    assert reasons[2] == "the file is empty"
    assert reasons[9] == "not a picture in a known format"
    assert reasons[5].startswith("cannot be decoded")
    assert reasons[11] == "the file does not exist"


def test_one_damaged_picture_stops_a_run_that_allows_none(mixed):
    with pytest.raises(JaxftError, match=r"1 of 12 pictures of val cannot be read \(04\.png: the file is empty\)") as error:
        drop_bad(mixed(4), "val", 0.0)
    assert "config.data.max_bad_fraction" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_share_of_damaged_pictures_is_left_out_and_said(mixed):
    kept, (note,) = drop_bad(mixed(2, 9, 5), "train", 0.25)
    assert kept.names == [f"{number:02d}.png" for number in (0, 1, 3, 4, 6, 7, 8, 10, 11)]
    np.testing.assert_array_equal(kept.labels, np.array([0, 1, 3, 4, 6, 7, 8, 10, 11]) % 3)
    assert kept.labels.dtype == np.int32
    assert note.startswith("3 pictures of train cannot be read and are left out (02.png: the file is empty; 05.png: ")
    assert find_bad(kept) == []


def test_one_more_than_the_share_is_refused_and_the_first_three_are_named(mixed):
    source = mixed(2, 9, 5, 0)
    drop_bad(source, "train", 4 / 12)
    with pytest.raises(JaxftError, match=r"4 of 12 .*00\.png: .*; 02\.png: .*; 05\.png: .*; and 1 more\)"):
        drop_bad(source, "train", 0.25)


def test_a_class_that_would_have_no_picture_is_refused(mixed):
    with pytest.raises(JaxftError, match=r"a class of train has no readable picture \(01\.png"):
        drop_bad(mixed(1, 4, 7, 10), "train", 0.5)


def test_labels_that_are_no_classes_have_no_class_to_lose(mixed):
    labels = np.linspace(0, 1, 12, dtype=np.float32)
    kept, notes = drop_bad(mixed(1, 4, labels=labels), "train", 0.5)
    np.testing.assert_array_equal(kept.labels, np.delete(labels, [1, 4]))
    assert len(notes) == 1


def test_a_split_without_a_readable_picture_is_refused_whatever_is_allowed(mixed):
    with pytest.raises(JaxftError, match="has no readable picture"):
        drop_bad(mixed(*range(12)), "train", 1.0)
