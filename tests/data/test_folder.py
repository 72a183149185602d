"""Folders of class folders and tables: what is found, in which order, and what is said of what is missing."""

import numpy as np
import pytest

from jaxft.data.folder import read_csv, read_folder
from jaxft.errors import JaxftError


def labelled(files):
    return dict(zip(files.names, files.labels.tolist(), strict=True))


@pytest.fixture
def table(tmp_path):
    """text -> the path of a table that holds it."""

    def write(text, encoding="utf-8"):
        path = tmp_path / "table.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write


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
    with pytest.raises(JaxftError, match=r"the class folder '.*eel' holds no pictures \(\.bmp, .*\.webp\)"):
        read_folder(root)


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


# Tables.


def test_a_table_of_classes_is_read(table):
    found, names = read_csv(table("path,label\n1.png,cat\nsub/2.png,ant\n3.png, cat \n"), "classify")
    assert names == ("ant", "cat")
    assert list(found) == ["all"]
    assert labelled(found["all"]) == {"1.png": 1, "sub/2.png": 0, "3.png": 1}
    assert found["all"].labels.dtype == np.int32
    assert found["all"].root == table("").parent


def test_columns_may_stand_in_any_order_beside_others(table):
    found, names = read_csv(table('label,who,path\n"cat, large",me,"a,b.png"\ndog,,2.png\n'), "classify")
    assert names == ("cat, large", "dog")
    assert labelled(found["all"]) == {"a,b.png": 0, "2.png": 1}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_tables_of_spreadsheets_are_read_whatever_their_first_bytes_and_line_ends(table, encoding, ending):
    found, names = read_csv(table(ending.join(["path,label", "é.png,Käse", "2.png,Brot", ""]), encoding), "classify")
    assert names == ("Brot", "Käse")
    assert labelled(found["all"]) == {"é.png": 1, "2.png": 0}


def test_a_split_column_splits_by_the_usual_names(table):
    rows = ["1,a,train", "2,b,Training", "3,a,val", "4,b, VALID", "5,a,validation ", "6,b,test", "7,a,testing"]
    found, names = read_csv(table("\n".join(["path,label,split", *rows])), "classify")
    assert names == ("a", "b")
    assert {split: labelled(files) for split, files in found.items()} == {
        "train": {"1": 0, "2": 1},
        "val": {"3": 0, "4": 1, "5": 0},
        "test": {"6": 1, "7": 0},
    }


@pytest.mark.parametrize(("split", "shown"), [("dev", "dev"), ("", "")])
def test_an_unknown_split_is_named_with_its_line(table, split, shown):
    with pytest.raises(JaxftError, match=f"line 3: split is '{shown}', not train, val or test"):
        read_csv(table(f"path,label,split\n1,a,train\n2,b,{split}\n"), "classify")


@pytest.mark.parametrize("task", ["classify", "regression"])
@pytest.mark.parametrize(
    ("text", "has"),
    [("file,class\n1.png,cat\n", "file, class"), ("path\n1.png\n", "path"), ("label\n1\n", "label"), ("", "none")],
)
def test_missing_columns_are_named(table, text, has, task):
    with pytest.raises(JaxftError, match=rf"needs the columns path,label\[,split\]; it has {has}"):
        read_csv(table(text), task)


def test_a_table_without_rows_says_so(table):
    with pytest.raises(JaxftError, match="has no rows"):
        read_csv(table("path,label\n"), "classify")


def test_a_row_without_a_path_is_named(table):
    for row in ("cat", "cat,"):
        with pytest.raises(JaxftError, match="line 3: no path"):
            read_csv(table(f"label,path\ndog,1.png\n{row}\n"), "classify")


def test_one_class_in_a_table_is_nothing_to_tell_apart(table):
    with pytest.raises(JaxftError, match=r"has one class only \('cat'\)"):
        read_csv(table("path,label\n1,cat\n2,cat\n"), "classify")


@pytest.mark.parametrize(("label", "shown"), [("", ""), (" ; ", " ; "), ("cat;dog", "cat;dog")])
def test_a_row_of_a_class_has_one_label(table, label, shown):
    with pytest.raises(JaxftError, match=f"line 3: '{shown}' is not one label .task 'multilabel' takes several"):
        read_csv(table(f"path,label\n1,cat\n2,{label}\n3,dog\n"), "classify")


def test_a_row_cut_short_has_no_label(table):
    with pytest.raises(JaxftError, match="line 3: 'None' is not one label"):
        read_csv(table("path,label\n1,cat\n2\n3,dog\n"), "classify")


def test_several_labels_in_a_column_are_read(table):
    found, names = read_csv(table("path,label\n1,sun;sea\n2,\n3, sea ;;\n4,sun;sun\n"), "multilabel")
    assert names == ("sea", "sun")
    np.testing.assert_array_equal(found["all"].labels, [[1, 1], [0, 0], [1, 0], [0, 1]])
    assert found["all"].labels.dtype == np.float32


def test_a_column_a_class_is_read(table):
    found, names = read_csv(table("path,sun,split,sea\n1,1,train,0\n2,0.0,val,1\n"), "multilabel")
    assert names == ("sun", "sea")
    np.testing.assert_array_equal(found["train"].labels, [[1, 0]])
    np.testing.assert_array_equal(found["val"].labels, [[0, 1]])
    assert found["val"].labels.dtype == np.float32


@pytest.mark.parametrize("value", ["x", "", "2", "-1", "0.5", "nan"])
def test_a_column_of_a_class_holds_zero_or_one(table, value):
    with pytest.raises(JaxftError, match=f"columns of classes must hold 0 or 1 .*'{value}'"):
        read_csv(table(f"path,sun,sea\n1,0,1\n2,1,{value}\n"), "multilabel")


def test_several_labels_without_any_class_are_refused(table):
    with pytest.raises(JaxftError, match="has no column of a class, and no column 'label'"):
        read_csv(table("path,split\n1,train\n"), "multilabel")
    with pytest.raises(JaxftError, match="has no label in any row"):
        read_csv(table("path,label\n1,\n2,;\n"), "multilabel")


def test_numbers_to_predict_are_read(table):
    found, names = read_csv(table("path,label\n1,3.5\n2,-1e-3\n3, 7 \n"), "regression")
    assert names == ("value",)
    np.testing.assert_array_equal(found["all"].labels, np.array([3.5, -1e-3, 7], np.float32))
    assert found["all"].labels.dtype == np.float32


@pytest.mark.parametrize("value", ["x", "", "nan", "inf", "1,5"])
def test_a_label_to_predict_must_be_a_number(table, value):
    with pytest.raises(JaxftError, match="a label of a regression must be a number"):
        read_csv(table(f'path,label\n1,2\n2,"{value}"\n'), "regression")


def test_a_table_that_cannot_be_read_says_why(table, tmp_path):
    with pytest.raises(JaxftError, match=r"cannot read the table '.*no\.csv': No such file"):
        read_csv(tmp_path / "no.csv", "classify")
    with pytest.raises(JaxftError, match="cannot read the table .*directory"):
        read_csv(tmp_path, "classify")
    with pytest.raises(JaxftError, match="cannot read the table .*utf-8"):
        read_csv(table("path,label\nKäse,1\n", "latin-1"), "classify")


def test_splits_without_a_training_split_are_no_classes(tmp_path):
    for name in ("val", "test"):
        (tmp_path / name / "cat").mkdir(parents=True)
    with pytest.raises(JaxftError, match="has test and val but no folder 'train'"):
        read_folder(tmp_path)


def test_a_path_listed_twice_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("path,label\na.png,x\nb.png,y\na.png,y\n")
    with pytest.raises(JaxftError, match="line 4: 'a.png' stands in line 2 already"):
        read_csv(tmp_path / "t.csv", "classify")
