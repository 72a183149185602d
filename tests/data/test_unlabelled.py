"""Pictures without labels: any folder, and other sources with their labels dropped."""

import numpy as np
import pytest
from PIL import Image

from jaxft.data import check_data, open_data
from jaxft.data.convert import convert_data
from jaxft.errors import JaxftError


@pytest.fixture(scope="module")
def loose(tmp_path_factory):
    """Twelve pictures: some in the folder itself, some deep below it."""
    root = tmp_path_factory.mktemp("loose")
    rng = np.random.default_rng(0)
    for number in range(12):
        folder = root / ("" if number % 3 else "deep/er")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (9, 8, 3), dtype=np.uint8)).save(folder / f"{number:02d}.png")
    (root / "notes.txt").write_text("no picture")
    return root


def _open(source, **options):
    return open_data(source, task="unlabelled", **options)


def _names(splits):
    return sorted(name for part in (splits.train, splits.val, splits.test) if part is not None for name in part.names)


def test_any_folder_of_pictures_is_data(loose):
    splits = _open(f"folder:{loose}", val_fraction=0.25, test_fraction=0.0)
    assert _names(splits) == sorted(f"{'' if number % 3 else 'deep/er/'}{number:02d}.png" for number in range(12))
    assert (len(splits.train), len(splits.val), splits.test) == (9, 3, None)
    assert splits.class_names == ()
    np.testing.assert_array_equal(splits.train.labels, np.zeros(9, np.int32))
    assert splits.train.labels.dtype == np.int32
    again = _open(str(loose), val_fraction=0.25, test_fraction=0.0)
    assert (again.fingerprint, _names(again)) == (splits.fingerprint, _names(splits))


def test_class_folders_and_folders_of_splits_are_folders_too(photos, tmp_path):
    assert len(_names(_open(f"folder:{photos}"))) == len(_names(open_data(f"folder:{photos}")))
    (tmp_path / "train").symlink_to(photos / "circle")
    (tmp_path / "val").symlink_to(photos / "cross")
    splits = _open(f"folder:{tmp_path}")
    assert {name.partition("/")[0] for name in splits.train.names} == {"train"}
    assert {name.partition("/")[0] for name in splits.val.names} == {"val"}


def test_a_table_needs_no_label_and_one_it_has_is_dropped(loose, tmp_path):
    files = [str(path) for path in sorted(loose.rglob("*.png"))]
    (tmp_path / "bare.csv").write_text("path\n" + "\n".join(files) + "\n")
    (tmp_path / "labelled.csv").write_text("path,label\n" + "".join(f"{path},{row}\n" for row, path in enumerate(files)))
    for table in ("bare.csv", "labelled.csv"):
        splits = _open(f"csv:{tmp_path / table}", val_fraction=0.25, test_fraction=0.0)
        assert _names(splits) == sorted(files)
        assert splits.class_names == ()
        assert not splits.train.labels.any()
    (tmp_path / "wrong.csv").write_text("label\n1\n")
    with pytest.raises(JaxftError, match="needs the columns path; it has label"):
        _open(f"csv:{tmp_path / 'wrong.csv'}")


def test_arrays_and_objects_may_be_pictures_alone():
    images = np.random.default_rng(1).integers(0, 255, (10, 6, 6, 3), dtype=np.uint8)
    labelled = _open((images, np.arange(10) * 1.5), val_fraction=0.2, test_fraction=0.0)
    bare = _open(images, val_fraction=0.2, test_fraction=0.0)
    pairs = _open(list(zip(images, range(10), strict=True)), val_fraction=0.2, test_fraction=0.0)
    dicts = _open([{"image": image} for image in images], val_fraction=0.2, test_fraction=0.0)
    for splits in (labelled, bare, pairs, dicts):
        assert (len(splits.train), len(splits.val), splits.class_names) == (8, 2, ())
        for row in range(8):
            number = int(splits.train.names[row].rpartition("/")[2])
            np.testing.assert_array_equal(splits.train[row][0], images[number])
            assert splits.train[row][1] == 0


def test_records_of_any_task_open_and_pictures_without_labels_can_be_packed(photos, loose, tmp_path):
    convert_data(f"folder:{photos}", tmp_path / "classes")
    assert _open(f"records:{tmp_path / 'classes'}").class_names == ()
    convert_data(f"folder:{loose}", tmp_path / "bare", task="unlabelled")
    splits = _open(f"records:{tmp_path / 'bare'}", val_fraction=0.25, test_fraction=0.0)
    assert (len(splits.train), splits.class_names) == (9, ())
    with pytest.raises(JaxftError, match="was packed for the task 'unlabelled', not 'classify'"):
        open_data(f"records:{tmp_path / 'bare'}")


def test_a_survey_counts_them(loose, tmp_path):
    survey = check_data(f"folder:{loose}", task="unlabelled", sheet=tmp_path / "sheet.html")
    assert survey.splits["all"].count == 12
    assert survey.splits["all"].classes == {}
    assert "12 pictures" in str(survey)
    assert "class" not in str(survey)
    assert "classes" not in (tmp_path / "sheet.html").read_text()


def test_what_does_not_fit_is_one_clear_error(loose, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(JaxftError, match="holds no pictures"):
        _open(f"folder:{tmp_path / 'empty'}")
    with pytest.raises(JaxftError, match="per_class counts the pictures of a class, which the task 'unlabelled' does not have"):
        _open(f"folder:{loose}", per_class=2)
    with pytest.raises(JaxftError, match="there must be as many, and some"):
        _open((np.zeros((0, 4, 4, 3), np.uint8), []))
