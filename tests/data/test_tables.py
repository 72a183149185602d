"""Tables of paths and labels: what is read, and what is said of what does not fit."""

import numpy as np
import pytest

from jaxft.data.tables import read_csv
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
    with pytest.raises(JaxftError, match="line 3: '' is not one label"):
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


def test_a_path_listed_twice_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("path,label\na.png,x\nb.png,y\na.png,y\n")
    with pytest.raises(JaxftError, match="line 4: 'a.png' stands in line 2 already"):
        read_csv(tmp_path / "t.csv", "classify")


def test_shares_of_classes_are_read(table):
    found, names = read_csv(table("path,split,sun,group,sea\n1,train,0.25,g,0.75\n2,val,1,h,0.0\n"), "soft")
    assert names == ("sun", "sea")
    np.testing.assert_array_equal(found["train"].labels, [[0.25, 0.75]])
    assert found["val"].labels.dtype == np.float32
    assert found["val"].groups == ["h"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0.5,0.4", "line 3: the shares of the classes must be at least 0 and sum to 1; the least is 0.4, the sum 0.9"),
        ("0,0", "line 3: .* the sum 0$"),
        ("-0.5,1.5", "columns of classes must hold shares of 0 to 1 .found '-0.5'"),
        ("x,1", "columns of classes must hold shares of 0 to 1 .found 'x'"),
        (",1", "columns of classes must hold shares of 0 to 1 .found ''"),
    ],
)
def test_shares_that_are_none_are_named(row, message, table):
    with pytest.raises(JaxftError, match=message):
        read_csv(table(f"path,sun,sea\n1,0.5,0.5\n2,{row}\n"), "soft")


def test_shares_of_one_class_or_none_are_refused(table):
    with pytest.raises(JaxftError, match="has one class only"):
        read_csv(table("path,sun\n1,1\n"), "soft")
    with pytest.raises(JaxftError, match="has no column of a class"):
        read_csv(table("path,split\n1,train\n"), "soft")


def test_a_column_that_is_there_twice_is_refused(table):
    with pytest.raises(JaxftError, match="has two columns 'label'"):
        read_csv(table("path,label,label\n1,a,b\n"), "classify")


def test_empty_lines_are_passed_over(table):
    assert labelled(read_csv(table("path,label\n\n1,a\n\n2,b\n"), "classify")[0]["all"]) == {"1": 0, "2": 1}
