"""Opening data by a line of text: what is split off, what is checked, what a user is told."""

import itertools
import sys

import numpy as np
import pytest

from jaxft.data import Arrays, Files, open_data
from jaxft.data.convert import convert_data
from jaxft.data.splits import write_manifest
from jaxft.errors import JaxftError

IMAGES = np.random.default_rng(0).integers(0, 256, (60, 4, 4, 3), dtype=np.uint8)
LABELS = np.arange(60) % 3


def names_of(found):
    """The names of every split."""
    return {split: list(getattr(found, split).names) for split in ("train", "val", "test") if getattr(found, split)}


@pytest.fixture
def tree(draw):
    """(classes and how many pictures each has, ...) -> a folder of class folders."""

    def make(under="photos", **counts):
        return draw(*(f"{name}/{number:02d}.png" for name, count in counts.items() for number in range(count)), under=under)

    return make


@pytest.fixture
def parted(draw):
    """Split folders -> a folder of them with two pictures of two classes each."""

    def make(*splits):
        return draw(*(f"{split}/{name}/{number}.png" for split in splits for name in "ab" for number in range(10)))

    return make


# Folders and tables.


def test_a_folder_of_classes_is_split_in_three_stratified(tree):
    root = tree(ant=20, cat=40, dog=10)
    found = open_data(f"folder:{root}")
    assert found.class_names == ("ant", "cat", "dog")
    assert np.bincount(found.train.labels).tolist() == [16, 32, 8]
    assert np.bincount(found.val.labels).tolist() == [2, 4, 1]
    assert np.bincount(found.test.labels).tolist() == [2, 4, 1]
    together = sorted(itertools.chain(*names_of(found).values()))
    assert together == sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    assert found.notes == ("split by us: 56 train, 7 val, 7 test",)
    for part in (found.train, found.val, found.test):
        assert isinstance(part, Files)
        assert [found.class_names[label] for label in part.labels] == [name.split("/")[0] for name in part.names]


def test_a_folder_may_be_named_with_or_without_its_kind(tree, monkeypatch):
    root = tree(a=10, b=10)
    monkeypatch.setenv("HOME", str(root.parent))
    prints = {open_data(source).fingerprint for source in (f"folder:{root}", str(root), root, "folder:~/photos", "~/photos")}
    assert len(prints) == 1


def test_fractions_are_of_the_whole(tree):
    found = open_data(str(tree(a=100, b=100)), val_fraction=0.25, test_fraction=0.5)
    assert [len(part) for part in (found.train, found.val, found.test)] == [50, 50, 100]


def test_without_fractions_there_is_one_split(tree):
    found = open_data(str(tree(a=5, b=5)), val_fraction=0, test_fraction=0)
    assert len(found.train) == 10
    assert found.val is None
    assert found.test is None


def test_fractions_that_leave_nothing_to_train_on_are_refused():
    for val, test in ((0.5, 0.5), (0.9, 0.2), (1.0, 0.0), (-0.1, 0.1)):
        with pytest.raises(JaxftError, match=r"must lie in \[0, 1\)"):
            open_data((IMAGES, LABELS), val_fraction=val, test_fraction=test)


def test_splits_that_come_with_the_data_stay_as_they_are(parted):
    found = open_data(parted("train", "val", "test"), val_fraction=0.5, split_seed=9)
    assert [len(part) for part in (found.train, found.val, found.test)] == [20, 20, 20]
    assert {name.split("/")[0] for name in found.val.names} == {"val"}
    assert found.notes == ()


def test_training_data_give_the_validation_that_is_missing(parted):
    found = open_data(parted("train", "test"), val_fraction=0.3, test_fraction=0.5)
    assert np.bincount(found.train.labels).tolist() == [7, 7]
    assert np.bincount(found.val.labels).tolist() == [3, 3]
    assert len(found.test) == 20
    assert {name.split("/")[0] for name in found.val.names} == {"train"}
    assert found.notes == ("split by us: 14 train, 6 val",)


def test_a_missing_test_split_is_said(parted):
    found = open_data(parted("train", "val"), test_fraction=0.5)
    assert found.test is None
    (note,) = found.notes
    assert note.startswith("there is no test split: the final figures are on the validation split")


def test_a_table_is_opened(draw):
    root = draw(*(f"in/{number:02d}.png" for number in range(40)))
    rows = [f"in/{number:02d}.png,{'ab'[number % 2]}" for number in range(40)]
    (root / "table.csv").write_text("\n".join(["path,label", *rows]))
    found = open_data(f"csv:{root / 'table.csv'}")
    assert found.class_names == ("a", "b")
    assert [len(part) for part in (found.train, found.val, found.test)] == [32, 4, 4]
    assert found.val[0][0].is_file()


def test_tables_of_other_tasks_are_split(draw):
    root = draw(*(f"{number:02d}.png" for number in range(20)))
    for task, labels in (("multilabel", "x;y"), ("regression", "0.5")):
        (root / "table.csv").write_text("\n".join(["path,label", *(f"{number:02d}.png,{labels}" for number in range(20))]))
        found = open_data(f"csv:{root / 'table.csv'}", task=task)
        assert [len(part) for part in (found.train, found.val, found.test)] == [16, 2, 2]
        assert found.class_names == {"multilabel": ("x", "y"), "regression": ("value",)}[task]


def test_a_table_without_training_rows_is_refused(draw):
    root = draw("1.png", "2.png")
    (root / "table.csv").write_text("path,label,split\n1.png,a,val\n2.png,b,test\n")
    with pytest.raises(JaxftError, match="the data have no training split"):
        open_data(f"csv:{root / 'table.csv'}")


def test_a_picture_of_a_table_that_is_missing_is_named(draw):
    root = draw("1.png", "2.png")
    (root / "table.csv").write_text("path,label\n1.png,a\nno.png,b\n2.png,b\n")
    with pytest.raises(JaxftError, match=r"1 of 3 pictures of all cannot be read \(no\.png: the file does not exist\)"):
        open_data(f"csv:{root / 'table.csv'}")


def test_a_share_of_damaged_pictures_is_left_out_and_said(tree):
    root = tree(a=20, b=20)
    (root / "a/03.png").write_bytes(b"")
    with pytest.raises(JaxftError, match=r"1 of 40 .*a/03\.png: the file is empty.*max_bad_fraction"):
        open_data(str(root))
    found = open_data(str(root), max_bad_fraction=0.05)
    assert found.notes[0].startswith("1 pictures of all cannot be read and are left out (a/03.png: the file is empty)")
    assert "a/03.png" not in itertools.chain(*names_of(found).values())
    assert sum(len(names) for names in names_of(found).values()) == 39


def test_a_damaged_picture_of_a_later_split_is_found_too(parted):
    root = parted("train", "val", "test")
    (root / "test/b/4.png").write_text("not yet")
    with pytest.raises(JaxftError, match=r"1 of 20 pictures of test cannot be read \(test/b/4\.png"):
        open_data(str(root))


def test_the_same_picture_in_two_splits_is_reported(parted):
    root = parted("train", "val", "test")
    (root / "test/a/5.png").write_bytes((root / "train/b/2.png").read_bytes())
    (note,) = open_data(str(root)).notes
    assert note == "1 pictures are in train and in test (train/b/2.png = test/a/5.png): figures on test will flatter"


# Seeds, fingerprints and the written list.


def test_the_seed_alone_decides_the_split(tree):
    root = tree(a=20, b=20)
    one, again, other = (open_data(str(root), split_seed=seed) for seed in (0, 0, 1))
    assert names_of(one) == names_of(again)
    assert one.fingerprint == again.fingerprint
    assert names_of(one) != names_of(other)
    assert one.fingerprint != other.fingerprint


def test_the_fingerprint_does_not_depend_on_where_the_data_lie(tree):
    first, second = tree(under="here", a=10, b=10), tree(under="there/deep", a=10, b=10)
    assert open_data(str(first)).fingerprint == open_data(str(second)).fingerprint
    (second / "a/00.png").rename(second / "a/zz.png")
    assert open_data(str(first)).fingerprint != open_data(str(second)).fingerprint


def test_another_picture_under_the_same_name_is_other_data(tree):
    root = tree(a=10, b=10)
    before = open_data(str(root)).fingerprint
    (root / "a/00.png").write_bytes((root / "b/00.png").read_bytes())
    assert open_data(str(root)).fingerprint != before


def test_a_written_list_of_splits_is_kept_and_refuses_data_that_came(tree, tmp_path):
    root, manifest = tree(a=20, b=20), tmp_path / "splits.json"
    first = open_data(str(root))
    parts = {"train": first.train, "val": first.val, "test": first.test}
    write_manifest(manifest, parts, {"val_fraction": 0.1, "test_fraction": 0.1, "split_seed": 0})
    assert open_data(str(root), manifest=manifest).fingerprint == first.fingerprint
    (root / "a/new.png").write_bytes((root / "a/00.png").read_bytes())
    with pytest.raises(JaxftError, match=r"the data changed since .* 1 came \(a/new\.png\); remove it to split anew"):
        open_data(str(root), manifest=manifest)


# Arrays.


def test_arrays_are_split_and_numbered():
    found = open_data((IMAGES, LABELS), class_names=["ant", "cat", "dog"])
    assert found.class_names == ("ant", "cat", "dog")
    assert [len(part) for part in (found.train, found.val, found.test)] == [48, 6, 6]
    for part in (found.train, found.val, found.test):
        assert isinstance(part, Arrays)
        assert part.labels.dtype == np.int32
        for number, name in enumerate(part.names):
            pixels, label = part[number]
            origin = int(name.removeprefix("all/"))
            np.testing.assert_array_equal(pixels, IMAGES[origin])
            assert label == LABELS[origin]
    assert sorted(itertools.chain(*names_of(found).values())) == sorted(f"all/{number}" for number in range(60))
    assert open_data((IMAGES, LABELS)).class_names == ("0", "1", "2")


@pytest.mark.parametrize("labels", [LABELS.astype(np.uint8), LABELS.astype(float), LABELS.tolist()])
def test_labels_of_any_number_type_are_the_same_data(labels):
    assert open_data((IMAGES, labels)).fingerprint == open_data((IMAGES, LABELS)).fingerprint


def test_arrays_may_come_in_splits_and_in_sizes():
    pictures = [np.zeros((3 + number, 5), np.uint8) for number in range(6)]
    found = open_data({"train": (pictures, [0, 1] * 3), "val": (pictures[:2], [1, 0]), "test": (pictures[:3], [0, 2, 1])})
    assert [len(part) for part in (found.train, found.val, found.test)] == [6, 2, 3]
    assert found.class_names == ("0", "1", "2")
    assert found.train[4][0].shape == (7, 5)
    assert found.notes == ()


def test_arrays_of_other_tasks_are_opened():
    found = open_data((IMAGES, np.eye(3)[LABELS]), task="multilabel")
    assert found.train.labels.shape == (48, 3)
    assert found.train.labels.dtype == np.float32
    assert found.class_names == ("0", "1", "2")
    found = open_data((IMAGES[..., 0], LABELS / 7), task="regression")
    assert found.train.labels.dtype == np.float32
    assert found.class_names == ("value",)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ((IMAGES, LABELS[:9]), {}, "all: 60 images and 9 labels"),
        ((IMAGES[:0], LABELS[:0]), {}, "0 images and 0 labels"),
        ((IMAGES, np.eye(3)[LABELS]), {}, r"the task 'classify' cannot have the shape \[60, 3\]"),
        ((IMAGES, LABELS), {"task": "multilabel"}, r"the task 'multilabel' cannot have the shape \[60\]"),
        ((IMAGES, LABELS - 1), {}, "class numbers from 0"),
        ((IMAGES, LABELS * 0), {}, "two classes at least"),
        ((IMAGES, LABELS / 2), {}, "must be whole numbers"),
        ((IMAGES, LABELS * np.nan), {}, "must be whole numbers"),
        ((IMAGES, np.array(["ant", "cat", "dog"])[LABELS]), {}, "all: labels must be numbers, not <U3"),
        ((IMAGES / 255, LABELS), {}, r"pixels must be uint8 .* not float64 \[4, 4, 3\]"),
        ((IMAGES[:, 0, :, 0], LABELS), {}, r"pixels must be uint8 .* \[4\]"),
        ((IMAGES, LABELS), {"class_names": ["a", "b"]}, "2 class names for labels up to 2"),
        ({"dev": (IMAGES, LABELS)}, {}, "'dev' is no split: arrays come as train, val and test"),
        ({"val": (IMAGES, LABELS)}, {}, "the data have no training split"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_with_what_was_found(source, options, message):
    with pytest.raises(JaxftError, match=message) as error:
        open_data(source, **options)
    assert "\n" not in str(error.value)


# Options behind the place, groups, and functions that give data.


def test_columns_of_a_table_are_named_behind_it(draw):
    root = draw(*(f"in/{number:02d}.png" for number in range(40)))
    rows = [
        f"in/{number:02d}.png,{'ab'[number % 2]},{'test' if number > 29 else 'train'},p{number // 5}" for number in range(40)
    ]
    (root / "table.csv").write_text("\n".join(["file,kind,part & parcel,who", *rows]))
    text = f"csv:{root / 'table.csv'}?image=file&label=kind&split=part%20%26%20parcel"
    found = open_data(f"{text}&group=who", val_fraction=0.3)
    assert [len(part) for part in (found.train, found.val, found.test)] == [20, 10, 10]
    assert not set(found.train.groups) & set(found.val.groups)
    other = open_data(text, val_fraction=0.3, group="who")
    assert names_of(other) == names_of(found)
    assert other.settings["group"] == "who"
    with pytest.raises(JaxftError, match=r"names one group, config\.data\.group another \('kind'\)"):
        open_data(f"{text}&group=who", group="kind")


def test_a_column_of_groups_is_used_unasked(draw):
    root = draw(*(f"{number:02d}.png" for number in range(40)))
    rows = [f"{number:02d}.png,{'ab'[number % 2]},{number // 4 or ''}" for number in range(40)]
    (root / "table.csv").write_text("\n".join(["path,label,group", *rows]))
    found = open_data(f"csv:{root / 'table.csv'}", val_fraction=0.2, test_fraction=0.2)
    held = [{group for group in part.groups if group} for part in (found.train, found.val, found.test)]
    assert sum(map(len, held)) == 9
    assert len(set().union(*held)) == 9


def test_groups_of_a_folder_are_told_by_an_expression(draw):
    root = draw(*(f"{name}/burst{number // 3}_{number}.png" for name in "ab" for number in range(30)))
    for found in (
        open_data(rf"folder:{root}?group=(burst\d+)_", val_fraction=0.2, test_fraction=0.2),
        open_data(str(root), group=r"burst\d+", val_fraction=0.2, test_fraction=0.2),
    ):
        held = [set(part.groups) for part in (found.train, found.val, found.test)]
        assert [len(groups) for groups in held] == [6, 2, 2]
        assert len(set().union(*held)) == 10
    for pattern, message in [
        ("patient", "the group 'patient' matches nothing in the name 'a/burst0_0.png'"),
        ("(", "is no regular exp"),
    ]:
        with pytest.raises(JaxftError, match=message):
            open_data(str(root), group=pattern)


def test_groups_in_two_splits_that_came_with_the_data_are_said(draw):
    root = draw(
        *(f"{split}/{name}/p{n}.png" for split, n in (("train", 0), ("train", 1), ("val", 1), ("test", 2)) for name in "ab")
    )
    note, *_ = open_data(str(root), group=r"p\d").notes
    assert note == "1 groups are in train and in val (p1): figures on val will flatter"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{root}?grup=x", r"folder sources take no option 'grup' \(did you mean 'group'\?\): it takes group"),
        ("folder:{root}?group=", r"options are written \?key=value&key=value, each once"),
        ("folder:{root}?group=a&group=b", "each once"),
        ("tfds:jaxft_digits?group=a", "tfds sources take no option 'group': it takes none"),
        ("tfds:", "'tfds:' says no place: write tfds: and where the data are"),
        ("parket:x.parquet", r"no folder 'parket:x.parquet' \(did you mean 'parquet'\?\)"),
    ],
)
def test_options_that_do_not_fit_are_named(text, message, tree):
    with pytest.raises(JaxftError, match=message):
        open_data(text.format(root=tree(a=3, b=3)))


def test_a_folder_whose_name_has_a_question_mark_is_a_folder(tree):
    assert len(open_data(str(tree("what?group=x", a=10, b=10))).train) == 16


@pytest.fixture
def module(tmp_path, monkeypatch):
    """text of a module -> it can be imported as `own_data`."""

    def write(text):
        (tmp_path / "own_data.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "own_data", raising=False)

    yield write
    sys.modules.pop("own_data", None)


def test_a_function_gives_any_kind_of_data(module, tree):
    module(
        "import numpy as np\n"
        f"def folder(): return 'folder:{tree(a=10, b=10)}'\n"
        "def arrays(): return np.zeros((30, 4, 4), np.uint8), np.arange(30) % 3\n"
        "def splits(): return {'train': arrays(), 'val': arrays()}\n"
        "def again(): return 'python:own_data:arrays'\n"
        "def nothing(): return None\n"
        "number = 3\n"
    )
    assert open_data("python:own_data:folder").class_names == ("a", "b")
    assert len(open_data("python:own_data:arrays").train) == 24
    assert len(open_data("python:own_data:splits").val) == 30
    for text, message in [
        ("python:own_data:array", r"the data 'own_data:array': 'own_data' has no 'array' \(did you mean 'arrays'"),
        ("python:nowhere_at_all:f", "cannot import 'nowhere_at_all'"),
        ("python:own_data:number", "is not a function"),
        ("python:own_data", "is not written python:MODULE:FUNCTION"),
        ("python:own_data:again", "it must return data, or another kind of source"),
        ("python:own_data:nothing", "all: NoneType is no data"),
    ]:
        with pytest.raises(JaxftError, match=message):
            open_data(text)


def test_the_same_pictures_in_records_and_in_files_have_one_fingerprint(tree, tmp_path):
    root = tree(a=10, b=10)
    convert_data(root, tmp_path / "records")
    assert open_data(f"records:{tmp_path / 'records'}").fingerprint == open_data(root).fingerprint


# What cannot be opened.


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("", {}, "no data: set config.data.source to folder:PATH, csv:FILE or tfds:NAME .or parquet:, hf:, wds:"),
        ("nowhere", {}, r"no folder 'nowhere' \(other data are written folder:, csv:, parquet:"),
        ("hdf5:x", {}, "no folder 'hdf5:x'"),
        ("folder:nowhere", {}, "no folder 'nowhere'"),
        ("csv:nowhere.csv", {}, "cannot read the table 'nowhere.csv'"),
        (
            "folder:x",
            {"task": "clasify"},
            r"no task is called 'clasify' \(did you mean 'classify'\?\); there are classify, multi",
        ),
        ("tfds:jaxft_digits", {"task": "regression"}, "tfds: sources are for the task 'classify', not 'regression'"),
    ],
)
def test_what_cannot_be_opened_says_what_can(source, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JaxftError, match=message):
        open_data(source, **options)


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_folders_are_for_classes(tree, task):
    for prefix in ("", "folder:"):
        with pytest.raises(JaxftError, match=f"the task '{task}' needs a table, csv:FILE"):
            open_data(f"{prefix}{tree(a=2, b=2)}", task=task)
