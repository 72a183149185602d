"""Folders of class folders: what is found, in which order, and what is said of what is missing."""

import numpy as np
import pytest

from jaxft.data import open_data
from jaxft.data.folder import read_folder
from jaxft.errors import JaxftError


def labelled(files):
    return dict(zip(files.names, files.labels.tolist(), strict=True))


# Folders.


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("train", "val", "test"), ("training", "validation", "testing"), ("train", "valid", "test")],
)
def test_folders_of_splits_are_found_by_their_usual_names(train, val, test, draw):
    root = draw(*(f"{split}/{name}/1.png" for split in (train, val, test) for name in ("cat", "dog")), f"{train}/cat/2.png")
    splits, names = read_folder(root)
    assert names == ("cat", "dog")
    assert {split: labelled(files) for split, files in splits.items()} == {
        "train": {f"{train}/cat/1.png": 0, f"{train}/cat/2.png": 0, f"{train}/dog/1.png": 1},
        "val": {f"{val}/cat/1.png": 0, f"{val}/dog/1.png": 1},
        "test": {f"{test}/cat/1.png": 0, f"{test}/dog/1.png": 1},
    }
    for files in splits.values():
        assert files.root == root
        assert files.labels.dtype == np.int32
        assert all(files[number][0].is_file() for number in range(len(files)))


def test_a_training_folder_alone_is_one_split(draw):
    splits, _ = read_folder(draw("train/a/1.png", "train/b/1.png"))
    assert list(splits) == ["train"]


def test_a_folder_without_split_folders_is_one_tree_of_classes(draw):
    splits, names = read_folder(draw("cat/1.png", "ant/1.png", "dog/1.png", "cat/0.png"))
    assert names == ("ant", "cat", "dog")
    assert labelled(splits["all"]) == {"ant/1.png": 0, "cat/0.png": 1, "cat/1.png": 1, "dog/1.png": 2}
    assert splits["all"].names == ["ant/1.png", "cat/0.png", "cat/1.png", "dog/1.png"]


def test_files_are_found_at_any_depth_and_in_any_case_and_others_are_passed_over(draw):
    root = draw("a/1.png", "a/deep/er/2.PNG", "a/x/3.JpEg", "b/1.webp")
    (root / "a/readme.txt").write_text("no picture")
    (root / "a/noextension").write_text("no picture")
    (root / "a/folder.png").mkdir()
    (root / "labels.csv").write_text("no class")
    splits, names = read_folder(root)
    assert names == ("a", "b")
    assert splits["all"].names == ["a/1.png", "a/deep/er/2.PNG", "a/x/3.JpEg", "b/1.webp"]


def test_hidden_files_and_folders_are_passed_over(draw):
    # What notebooks and file managers leave behind would be pictures twice, or no pictures at all.
    root = draw(".git/1.png", "a/1.png", "a/.ipynb_checkpoints/1.png", "a/x/.thumbs/1.png", "a/._1.png", "b/1.png")
    splits, names = read_folder(root)
    assert names == ("a", "b")
    assert splits["all"].names == ["a/1.png", "b/1.png"]


def test_a_hidden_folder_above_the_data_hides_nothing(draw):
    splits, _ = read_folder(draw("a/1.png", "b/1.png", under=".cache/data"))
    assert len(splits["all"]) == 2


def test_class_folders_are_ordered_by_name_and_not_by_number(draw):
    _, names = read_folder(draw("10/1.png", "9/1.png", "B/1.png", "a/1.png"))
    assert names == ("10", "9", "B", "a")


def test_a_folder_that_is_not_there_says_so(tmp_path):
    with pytest.raises(JaxftError, match="no folder '.*nowhere'"):
        read_folder(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(JaxftError, match="no folder '.*file'"):
        read_folder(tmp_path / "file")


def test_a_folder_without_classes_says_how_it_must_look(draw, tmp_path):
    with pytest.raises(JaxftError, match="holds no class folders: put each class's pictures in a folder of its name"):
        read_folder(draw("1.png", "2.png"))
    (tmp_path / "empty" / "train").mkdir(parents=True)
    with pytest.raises(JaxftError, match="empty/train' holds no class folders"):
        read_folder(tmp_path / "empty")


def test_one_class_is_nothing_to_tell_apart(draw):
    with pytest.raises(JaxftError, match=r"has one class only \('cat'\)"):
        read_folder(draw("cat/1.png"))


def test_an_empty_class_is_named(draw):
    root = draw("cat/1.png", "dog/1.png")
    (root / "eel").mkdir()
    (root / "eel" / "notes.txt").write_text("none yet")
    found, names = read_folder(root)
    assert names == ("cat", "dog", "eel")
    assert found["all"].empty == (root / "eel",)
    with pytest.raises(JaxftError, match=r"the class folder '.*eel' holds no pictures \(\.avif, .*\.webp\)"):
        open_data(root)


def test_splits_must_have_the_classes_of_the_training_data(draw):
    with pytest.raises(JaxftError, match=r"val' has no folder for the class 'dog', which the training data has"):
        read_folder(draw("train/cat/1.png", "train/dog/1.png", "val/cat/1.png", under="one"))
    with pytest.raises(JaxftError, match=r"test' has a class 'eel' that the training data does not have"):
        read_folder(
            draw(
                "train/cat/1.png",
                "train/dog/1.png",
                *(f"test/{name}/1.png" for name in ("cat", "dog", "eel")),
                under="two",
            )
        )


def test_splits_without_a_training_split_are_no_classes(tmp_path):
    for name in ("val", "test"):
        (tmp_path / name / "cat").mkdir(parents=True)
    with pytest.raises(JaxftError, match="has test and val but no folder 'train'"):
        read_folder(tmp_path)
