"""Examples by number, the fingerprint of a data set, and pictures to predict."""

import numpy as np
import pytest
from PIL import Image

from jaxft.data import Arrays, Files, predict_source
from jaxft.data.sources import fingerprint
from jaxft.errors import JaxftError


def splits(names=("a", "b", "c"), labels=(0, 1, 0), val=("d",), val_labels=(1,), kind=np.int32):
    def make(names, labels):
        labels = np.array(labels, kind)
        return Arrays(np.zeros((len(labels), 2, 2), np.uint8), labels, list(names))

    return {"train": make(names, labels), "val": make(val, val_labels) if val else None, "test": None}


def test_the_same_data_have_the_same_fingerprint_on_any_machine_and_in_any_version():
    found = fingerprint(splits(), ("cat", "dog"))
    assert found == fingerprint(splits(), ["cat", "dog"])
    assert found == "c7a25664a229d9ed5af4a51ed48b4d17e005a7951445fcde34f28ee29b4a8f33"


@pytest.mark.parametrize(
    "change",
    [
        {"names": ("a", "b", "e")},
        {"names": ("b", "a", "c")},
        {"names": ("ab", "", "c")},
        {"labels": (0, 1, 1)},
        {"names": ("a", "b"), "labels": (0, 1)},
        {"names": ("a", "b", "c", "d"), "labels": (0, 1, 0, 1), "val": (), "val_labels": ()},
        {"val": ("e",)},
        {"val_labels": (0,)},
        {"kind": np.float32},
    ],
)
def test_other_data_have_another_fingerprint(change):
    assert fingerprint(splits(**change), ("cat", "dog")) != fingerprint(splits(), ("cat", "dog"))


@pytest.mark.parametrize("names", [("dog", "cat"), ("cat",), ("cat", "dog", "eel"), ("catdog",)])
def test_other_classes_have_another_fingerprint(names):
    assert fingerprint(splits(), names) != fingerprint(splits(), ("cat", "dog"))


def test_the_same_examples_in_another_split_have_another_fingerprint():
    one = splits()
    assert fingerprint({**one, "val": one["test"], "test": one["val"]}, ()) != fingerprint(one, ())


@pytest.mark.parametrize(
    "images", [np.arange(48, dtype=np.uint8).reshape(4, 3, 4), [np.full((n + 1, 2), n, np.uint8) for n in range(4)]]
)
def test_a_subset_of_arrays_keeps_pictures_labels_and_names_together(images):
    source = Arrays(images, np.array([5, 6, 7, 8], np.int32), list("abcd"))
    part = source.subset(np.array([3, 1])).subset([1, 0, 0])
    assert len(part) == 3
    assert list(part.names) == ["b", "d", "d"]
    for number, origin in enumerate((1, 3, 3)):
        pixels, label = part[number]
        np.testing.assert_array_equal(pixels, images[origin])
        assert label == source.labels[origin]
    assert len(source.subset([])) == 0


def test_a_subset_of_files_keeps_paths_and_labels_together(tmp_path):
    source = Files(tmp_path, ["a", "b", "c"], np.array([[0, 1], [1, 0], [1, 1]], np.float32))
    part = source.subset([2, 0])
    assert part[0][0] == tmp_path / "c"
    np.testing.assert_array_equal(part.labels, [[1, 1], [0, 1]])
    assert len(source.subset([])) == 0


def test_pictures_to_predict_come_in_the_order_given_and_by_name_within_a_folder(draw):
    root = draw("z.png", "in/b.png", "in/a.png", "in/deep/c.JPG", "a.png")
    (root / "in" / "notes.txt").write_text("no picture")
    source, bad = predict_source([root / "z.png", str(root / "in"), root / "a.png"])
    names = ["z.png", "in/a.png", "in/b.png", "in/deep/c.JPG", "a.png"]
    assert source.names == [str(root / name) for name in names]
    assert [source[number][0] for number in range(5)] == [root / name for name in names]
    assert bad == []


def test_pictures_that_cannot_be_read_are_listed_with_the_reason(draw):
    root = draw("a.png", "b.png", "c.png")
    (root / "a.png").write_bytes(b"")
    (root / "c.png").write_text("not yet")
    source, bad = predict_source([root])
    assert source.names == [str(root / "b.png")]
    assert bad == [(str(root / "a.png"), "the file is empty"), (str(root / "c.png"), "not a picture in a known format")]


def test_a_path_that_is_not_there_and_a_folder_without_pictures_are_refused(draw, tmp_path):
    with pytest.raises(JaxftError, match="no picture or folder '.*no.png'"):
        predict_source([draw("a.png") / "no.png"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(JaxftError, match="empty holds no pictures"):
        predict_source([tmp_path / "empty"])


def test_hidden_files_are_no_pictures_to_classify(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "._a.png").write_bytes(b"resource fork")
    source, bad = predict_source([tmp_path])
    assert source.names == [str(tmp_path / "a.png")]
    assert bad == []
