"""Parquet tables: of paths as a CSV file, of pictures themselves; shards, row groups, damage."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import encode

from jaxft.data import open_data
from jaxft.data.parquet import read_parquet
from jaxft.data.tables import read_csv
from jaxft.errors import JaxftError

PICTURES = [encode(np.random.default_rng(n).integers(0, 256, (5, 6, 3), dtype=np.uint8), "PNG") for n in range(40)]


def write(file, rows_in_group=7, metadata=None, **columns):
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    pq.write_table(table.replace_schema_metadata(metadata) if metadata else table, file, row_group_size=rows_in_group)
    return file


@pytest.mark.parametrize(
    ("task", "columns"),
    [
        ("classify", {"label": ["b", "a", "c", "a"]}),
        ("classify", {"label": [2, 10, 2, 1], "split": ["train", "test", "train", "val"]}),
        ("regression", {"label": [0.1, -3.0, 1e-9, 7.0]}),
        ("multilabel", {"label": ["a;b", "", "b", "c"]}),
        ("multilabel", {"sun": [0, 1, 1, 0], "sea": [1, 1, 0, 0], "group": ["x", "x", "y", "y"]}),
        ("multilabel", {"sun": [False, True, True, False]}),
        ("soft", {"sun": [0.25, 0.1, 1.0, 0.0], "sea": [0.75, 0.9, 0.0, 1.0]}),
    ],
)
def test_a_table_is_read_as_the_same_table_in_csv(task, columns, tmp_path):
    columns = {"path": ["1.png", "in/2.png", "3.png", "4.png"], **columns}
    parquet = write(tmp_path / "table.parquet", **columns)
    rows = zip(*columns.values(), strict=True)
    text = [",".join(columns), *(",".join(str(int(cell) if isinstance(cell, bool) else cell) for cell in row) for row in rows)]
    (tmp_path / "table.csv").write_text("\n".join(text))
    (ours, names), (theirs, wanted) = read_parquet(parquet, task, {}), read_csv(tmp_path / "table.csv", task)
    assert names == wanted
    assert list(ours) == list(theirs)
    for split, part in ours.items():
        assert (part.root, part.names, part.groups) == (theirs[split].root, theirs[split].names, theirs[split].groups)
        np.testing.assert_array_equal(part.labels, theirs[split].labels)
        assert part.labels.dtype == theirs[split].labels.dtype


@pytest.mark.parametrize("struct", [False, True])
def test_pictures_are_read_out_of_shards_in_any_order(struct, tmp_path):
    for shard in range(2):
        rows = range(shard * 20, shard * 20 + 20)
        images = [{"bytes": PICTURES[row], "path": None} if struct else PICTURES[row] for row in rows]
        write(tmp_path / "in" / f"{shard}.parquet", image=images, label=[row % 2 for row in rows])
    found = open_data(f"parquet:{tmp_path / 'in'}", val_fraction=0, test_fraction=0)
    assert found.class_names == ("0", "1")
    assert list(found.train.names[19:21]) == ["0.parquet/19", "1.parquet/0"]
    order = np.random.default_rng(0).permutation(40).tolist() * 3
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda row: found.train[row][0], order)) == [PICTURES[row] for row in order]
    assert found.train.digests == [hashlib.sha256(picture).hexdigest() for picture in PICTURES]


def test_what_is_kept_of_row_groups_is_bounded(tmp_path, monkeypatch):
    write(tmp_path / "a.parquet", image=PICTURES, label=["a", "b"] * 20)
    source = read_parquet(tmp_path / "a.parquet", "classify", {})[0]["all"]
    groups = source.read.__self__
    monkeypatch.setattr("jaxft.data.parquet.CACHE_BYTES", 2 * sum(map(len, PICTURES[:7])))
    for row in (0, 39, 20, 1, 8, 0):
        assert source[row][0] == PICTURES[row]
        assert len(groups._kept) <= 2
        assert groups._bytes == sum(kept.nbytes for kept in groups._kept.values())


def test_pictures_beyond_what_is_kept_are_said_to_be_slow(tmp_path, monkeypatch):
    file = write(tmp_path / "a.parquet", image=PICTURES, label=["a", "b"] * 20)
    assert not any("row group" in note for note in open_data(f"parquet:{file}").notes)
    monkeypatch.setattr("jaxft.data.parquet.CACHE_BYTES", 1000)
    (note,) = [note for note in open_data(f"parquet:{file}").notes if "row group" in note]
    assert note.endswith("in random order that is slow; pack them into records once")


def test_pictures_named_by_path_in_a_struct_are_files(draw):
    root = draw("a.png", "b.png")
    write(root / "t.parquet", image=[{"bytes": None, "path": "a.png"}, {"bytes": None, "path": "b.png"}], label=["x", "y"])
    source = read_parquet(root / "t.parquet", "classify", {})[0]["all"]
    assert [source[0][0], source[1][0]] == [root / "a.png", root / "b.png"]


def test_class_names_of_hugging_face_are_used(tmp_path):
    features = {"label": {"_type": "ClassLabel", "names": ["cat", "ant"]}, "image": {"_type": "Image"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    file = write(tmp_path / "a.parquet", metadata=metadata, image=PICTURES[:3], label=[1, 0, 1])
    found, names = read_parquet(file, "classify", {})
    assert names == ("cat", "ant")
    assert found["all"].labels.tolist() == [1, 0, 1]
    file = write(tmp_path / "b.parquet", metadata=metadata, image=PICTURES[:3], label=[1, 0, 2])
    with pytest.raises(JaxftError, match="the column 'label' has numbers beyond its 2 classes"):
        read_parquet(file, "classify", {})


def test_lists_are_several_labels(tmp_path):
    file = write(tmp_path / "a.parquet", image=PICTURES[:3], label=[["b", "a"], [], ["b"]])
    found, names = read_parquet(file, "multilabel", {})
    assert names == ("a", "b")
    np.testing.assert_array_equal(found["all"].labels, [[1, 1], [0, 0], [0, 1]])


def test_columns_may_be_named(tmp_path):
    columns = {
        "photo": PICTURES,
        "kind": ["a", "b"] * 20,
        "part": ["train", "test"] * 20,
        "who": [f"p{n // 4}" for n in range(40)],
    }
    file = write(tmp_path / "a.parquet", **columns)
    found = open_data(f"parquet:{file}?image=photo&label=kind&group=who", val_fraction=0.2, test_fraction=0)
    assert not set(found.train.groups) & set(found.val.groups)
    assert {*found.train.groups, *found.val.groups} == set(columns["who"])
    found, _ = read_parquet(file, "classify", {"image": "photo", "label": "who", "split": "part"})
    assert {split: len(part) for split, part in found.items()} == {"train": 20, "test": 20}
    for text, message in [
        ("", "has no column of pictures 'image'; it has photo, kind, part, who: add .image=COLUMN"),
        ("?image=kin", r"'kin' \(did you mean 'kind'"),
        ("?image=photo", "needs the columns photo,label"),
        ("?image=photo&label=kid", r"has no column 'kid' \(did you mean 'kind'"),
    ]:
        with pytest.raises(JaxftError, match=message):
            open_data(f"parquet:{file}{text}")


def test_an_undecodable_picture_is_left_out_up_to_a_share(tmp_path):
    file = write(tmp_path / "a.parquet", image=[*PICTURES[:39], PICTURES[39][:30]], label=["a", "b"] * 20)
    with pytest.raises(JaxftError, match=r"1 of 40 pictures of all cannot be read \(a\.parquet/39: cannot be decoded"):
        open_data(f"parquet:{file}")
    assert sum(len(part) for part in open_data(f"parquet:{file}", max_bad_fraction=0.05).ours.values()) == 39


def test_a_row_without_a_picture_is_named(tmp_path):
    source = read_parquet(write(tmp_path / "a.parquet", image=[*PICTURES[:9], None], label=["a", "b"] * 5), "classify", {})[0][
        "all"
    ]
    with pytest.raises(JaxftError, match=r"a\.parquet': row 2 of its row group 1 has no picture"):
        _ = source[9]


def test_damaged_files_are_named(tmp_path):
    file = write(tmp_path / "in" / "a.parquet", image=PICTURES, label=["a", "b"] * 20)
    whole = file.read_bytes()
    for content in (b"", b"PAR1", whole[:-1], whole[: len(whole) // 2], b"x" * 100):
        file.write_bytes(content)
        with pytest.raises(JaxftError, match=r"cannot read '.*a\.parquet' as Parquet, it may be cut short"):
            read_parquet(file, "classify", {})
    file.write_bytes(whole)
    write(tmp_path / "in" / "b.parquet", image=PICTURES[:2], kind=["a", "b"])
    with pytest.raises(JaxftError, match=r"b\.parquet' has the columns image, kind, '.*a\.parquet' image, label"):
        read_parquet(tmp_path / "in", "classify", {})
    (tmp_path / "empty").mkdir()
    with pytest.raises(JaxftError, match="holds no .parquet files"):
        read_parquet(tmp_path / "empty", "classify", {})
    with pytest.raises(JaxftError, match=r"cannot read '.*nowhere\.parquet'.*"):
        read_parquet(tmp_path / "nowhere.parquet", "classify", {})


def test_a_row_group_that_is_gone_when_it_is_read_is_named(tmp_path):
    file = write(tmp_path / "a.parquet", image=PICTURES, label=["a", "b"] * 20)
    source = read_parquet(file, "classify", {})[0]["all"]
    file.unlink()
    with pytest.raises(JaxftError, match=r"cannot read row group 5 of '.*a\.parquet'"):
        _ = source[39]


@pytest.mark.parametrize(("image", "said"), [([1, 2], "int64"), ([[1], [2]], "list<")])
def test_a_column_that_holds_no_pictures_is_refused(image, said, tmp_path):
    with pytest.raises(JaxftError, match=f"the column 'image' is {said}.*, neither paths nor pictures"):
        read_parquet(write(tmp_path / "a.parquet", image=image, label=["a", "b"]), "classify", {})
