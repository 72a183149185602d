"""Objects of the user's own: read by number, labels read once, whatever they give said where it does not fit."""

import numpy as np
import pytest
from pictures import encode
from PIL import Image

from jaxft.data import Arrays, open_data
from jaxft.errors import JaxftError

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 4, 5, 3), dtype=np.uint8)


class Examples:
    """Thirty examples as torch's map-style data sets give them, and how often each was read."""

    def __init__(self, give=lambda row: (PIXELS[row], row % 3), size=30, **attributes):
        self.give, self.size, self.reads = give, size, 0
        vars(self).update(attributes)

    def __len__(self):
        return self.size

    def __getitem__(self, row):
        if row >= self.size:
            raise IndexError(row)
        self.reads += 1
        return self.give(row)


@pytest.mark.parametrize("kind", ["tuple", "dict", "list"])
def test_an_object_is_opened_and_its_labels_are_read_once(kind):
    give = {
        "tuple": lambda row: (PIXELS[row], row % 3),
        "dict": lambda row: {"image": PIXELS[row], "label": np.int64(row % 3), "more": 1},
    }
    examples = Examples(give[kind]) if kind in give else [(PIXELS[row], row % 3) for row in range(30)]
    found = open_data(examples)
    assert [len(part) for part in (found.train, found.val, found.test)] == [24, 3, 3]
    assert found.class_names == ("0", "1", "2")
    assert found.notes[0].startswith("all: all 30 examples were read once for their labels: an attribute `labels` spares that")
    for part in (found.train, found.val, found.test):
        assert part.labels.dtype == np.int32
        for row, name in enumerate(part.names):
            number = int(name.removeprefix("all/"))
            np.testing.assert_array_equal(part[row][0], PIXELS[number])
            assert part[row][1] == number % 3
    arrays = open_data((PIXELS, np.arange(30) % 3))
    assert found.fingerprint == arrays.fingerprint


def test_labels_names_groups_and_classes_of_the_object_are_used():
    examples = Examples(
        labels=np.arange(30) % 2,
        names=[f"p{row:02d}" for row in range(30)],
        groups=[row // 3 for row in range(30)],
        classes=["ant", "bee"],
    )
    found = open_data(examples, val_fraction=0.2, test_fraction=0)
    assert examples.reads == 1
    assert found.class_names == ("ant", "bee")
    assert not any("read once" in note for note in found.notes)
    assert not set(found.train.groups) & set(found.val.groups)
    assert sorted([*found.train.names, *found.val.names]) == examples.names
    assert open_data(examples, class_names=("x", "y")).class_names == ("x", "y")


def test_objects_and_arrays_may_come_by_split():
    found = open_data({"train": Examples(), "val": (PIXELS[:6], np.arange(6) % 3), "test": Examples(size=9)})
    assert [len(part) for part in (found.train, found.val, found.test)] == [30, 6, 9]
    assert isinstance(found.val, Arrays)
    assert found.test.names[8] == "test/8"


@pytest.mark.parametrize("kind", ["bytes", "path", "text"])
def test_encoded_pictures_are_checked_and_belong_to_the_fingerprint(kind, tmp_path):
    for row in range(30):
        (tmp_path / f"{row}.png").write_bytes(encode(PIXELS[row], "PNG"))
    kinds = {"bytes": lambda path: path.read_bytes(), "path": lambda path: path, "text": str}
    examples = Examples(lambda row: (kinds[kind](tmp_path / f"{row}.png"), row % 3))
    found = open_data(examples)
    assert found.fingerprint != open_data(Examples()).fingerprint
    (tmp_path / "4.png").write_bytes(encode(PIXELS[5], "PNG"))
    assert open_data(examples).fingerprint != found.fingerprint
    (tmp_path / "4.png").write_bytes(b"")
    with pytest.raises(JaxftError, match=r"1 of 30 pictures of all cannot be read \(all/4: the file is empty"):
        open_data(examples)
    assert sum(len(part) for part in open_data(examples, max_bad_fraction=0.1).ours.values()) == 29


def test_pillow_images_are_pictures():
    found = open_data(Examples(lambda row: (Image.fromarray(PIXELS[row]), row % 3)))
    row = int(found.train.names[5].removeprefix("all/"))
    np.testing.assert_array_equal(found.train[5][0], PIXELS[row])
    grey = open_data(Examples(lambda row: (Image.fromarray(PIXELS[row, ..., 0]), row % 3)))
    assert grey.train[0][0].shape == (4, 5)
    palette = open_data(Examples(lambda row: (Image.fromarray(PIXELS[row]).quantize(4), row % 3)))
    assert palette.train[0][0].shape == (4, 5, 3)


@pytest.mark.parametrize(
    ("task", "label", "shape"),
    [
        ("multilabel", lambda row: [row % 2, 1], (24, 2)),
        ("soft", lambda row: np.array([row % 2, 1 - row % 2]) * 0.6 + 0.2, (22, 2)),
        ("regression", lambda row: row / 7, (24,)),
    ],
)
def test_labels_of_other_tasks_are_read(task, label, shape):
    found = open_data(Examples(lambda row: (PIXELS[row], label(row))), task=task)
    assert found.train.labels.shape == shape
    assert found.train.labels.dtype == np.float32


def test_soft_arrays_are_split_by_the_largest_share():
    shares = np.tile([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], (10, 1))
    found = open_data((PIXELS, shares), task="soft", val_fraction=0.2, test_fraction=0.2, class_names=["a", "b"])
    assert found.class_names == ("a", "b")
    assert np.bincount(found.val.labels.argmax(-1)).tolist() == [4, 2]
    for wrong, message in [
        (shares * 2, "all/0: the shares of the classes must be at least 0 and sum to 1; the least is 0.2, the sum 2"),
        (shares - [[1, -1]], "all/0: .* the least is -0.1"),
        (shares * np.nan, "all/0: .* nan"),
        (shares[:, 0], r"the task 'soft' cannot have the shape \[30\]"),
    ]:
        with pytest.raises(JaxftError, match=message):
            open_data((PIXELS, wrong), task="soft")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (3, "all: int is no data: give .images, labels., or an object with __len__"),
        ([], "all: the list has no examples"),
        ([1, 2], r"all/0: an example must be \(image, label\) or a dict of them, not list\[0\]"),
        (Examples(lambda row: {"picture": 1}), r"all/0: an example must be .*KeyError\('image'\)"),
        (
            Examples(lambda row: (PIXELS[row] / 255, 0)),
            r"all/0: an image must be bytes, a path or uint8 .* not float64 \[4, 5, 3\]",
        ),
        (Examples(lambda row: (PIXELS[row], "cat")), "all: labels must be numbers, not <U3"),
        (Examples(lambda row: (PIXELS[row], [0] * (row + 1))), "all: labels must all be of one shape"),
        (Examples(lambda row: (PIXELS[row], row % 2 if row < 20 else None)), "all: labels must be numbers, not object"),
        (Examples(labels=[0, 1]), "all: 30 images and 2 labels"),
        (Examples(names=["a"] * 30), "all: the names of the examples must differ"),
        (Examples(names=["a"] * 3), "all: 3 names for 30 examples"),
        (Examples(groups=["a"] * 3), "all: 3 groups for 30 examples"),
        (Examples(classes=["a"]), "1 class names for labels up to 2"),
        ({"train": Examples(), "dev": Examples()}, "'dev' is no split"),
        ({"train": (PIXELS, np.ones((30, 2))), "val": (PIXELS, np.ones((30, 3)))}, "the splits have labels of 2 and 3 classes"),
    ],
)
def test_what_does_not_fit_is_said_with_what_was_found(source, message):
    task = "multilabel" if isinstance(source, dict) and "val" in source else "classify"
    with pytest.raises(JaxftError, match=message) as error:
        open_data(source, task=task)
    assert "\n" not in str(error.value)
