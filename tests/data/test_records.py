"""Records are opened without reading a picture, read in any order, and any damage is named."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from jaxft.data import open_data
from jaxft.data.convert import convert_data
from jaxft.data.records import read_records, unpack
from jaxft.errors import JaxftError


@pytest.fixture
def folder(draw, tmp_path):
    """Records of 40 pictures in four shards."""
    photos = draw(*(f"{name}/{number:02d}.png" for name in "ab" for number in range(20)))
    convert_data(photos, tmp_path / "records", shards=4)
    return tmp_path / "records"


def test_records_are_read_in_any_order_from_many_threads(folder):
    source = read_records(folder, "classify")[0]["all"]
    photos = folder.parent / "photos"
    with ThreadPoolExecutor(8) as pool:
        rows = [*reversed(range(40))] * 5
        for row, found in zip(rows, pool.map(lambda row: source[row][0], rows), strict=True):
            assert found == (photos / source.names[row]).read_bytes()
    part = source.subset([30, 3]).subset([1])
    assert part[0] == ((photos / source.names[3]).read_bytes(), 0)
    assert part.digests == [source.digests[3]]


def test_a_record_can_be_read_without_the_index(folder):
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(str(folder / "all-00002.array_record"))
    name, label, picture = unpack(reader.read([5])[0])
    assert (name, label) == ("b/05.png", 1)
    assert picture == (folder.parent / "photos" / name).read_bytes()


def test_opening_decodes_no_picture(folder, monkeypatch):
    def refuse(*arguments):
        raise AssertionError

    monkeypatch.setattr("jaxft.data.check.find_bad", refuse)
    monkeypatch.setattr("jaxft.data.records.Shards.read", refuse)
    assert len(open_data(f"records:{folder}").train) == 32


def test_groups_may_be_told_by_the_names(folder):
    found = open_data(rf"records:{folder}?group=(\d)\d\.png", val_fraction=0.5, test_fraction=0)
    assert not {name[2] for name in found.train.names} & {name[2] for name in found.val.names}


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_shard_cut_short_is_named(keep, folder):
    shard = folder / "all-00001.array_record"
    shard.write_bytes(shard.read_bytes()[:keep])
    with pytest.raises(JaxftError, match=r"all-00001\.array_record' has [\d,]+ bytes, not [\d,]+: it is cut short"):
        read_records(folder, "classify")


def test_a_shard_of_zeros_of_the_right_size_is_named(folder):
    shard = folder / "all-00001.array_record"
    shard.write_bytes(bytes(shard.stat().st_size))
    with pytest.raises(JaxftError, match=r"all-00001\.array_record' has 0 records, not 10"):
        read_records(folder, "classify")


def test_a_shard_that_is_gone_is_named(folder):
    (folder / "all-00003.array_record").unlink()
    with pytest.raises(JaxftError, match=r"all-00003\.array_record' cannot be read: No such file"):
        read_records(folder, "classify")


def test_shards_that_changed_places_are_found_out(folder):
    first, second = folder / "all-00000.array_record", folder / "all-00001.array_record"
    one, two = first.read_bytes(), second.read_bytes()
    index = json.loads((folder / "index.json").read_text())
    first.write_bytes(two)
    second.write_bytes(one)
    for shard, content in zip(index["shards"], (two, one), strict=False):
        shard["bytes"] = len(content)
    (folder / "index.json").write_text(json.dumps(index))
    source = read_records(folder, "classify")[0]["all"]
    with pytest.raises(JaxftError, match=r"record 0 of the shard .*all-00000\.array_record' is 'a/10\.png', not 'a/00\.png'"):
        _ = source[0]


def test_a_flipped_byte_is_never_a_wrong_picture(folder):
    shard = folder / "all-00000.array_record"
    whole = shard.read_bytes()
    want = [read_records(folder, "classify")[0]["all"][row][0] for row in range(10)]
    starts = [whole.index(picture) for picture in want]  # pictures are not compressed again
    for row, start in enumerate(starts):
        place = start + row * 9
        shard.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        source = read_records(folder, "classify")[0]["all"]
        with pytest.raises(JaxftError, match=rf"record {row} of the shard .*all-00000\.array_record' is damaged: convert anew"):
            _ = source[row]
        assert [source[other][0] for other in range(10) if other != row] == want[:row] + want[row + 1 :]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged"),
        (b"{", "is damaged"),
        (b"[]", "is damaged"),
        (b"{}", "is damaged"),
        (b'{"format": "jaxft records 9"}', "is of the format 'jaxft records 9', this version of jaxft reads"),
        (b'{"format": "jaxft records 1", "shards": [], "class_names": []}', r"is damaged \(no examples, fingerprint, task\)"),
        (b'{"format": "jaxft records 1", "shards": [3], "class_names": []}', "is damaged"),
    ],
)
def test_a_damaged_index_says_so(content, message, folder):
    (folder / "index.json").write_bytes(content)
    with pytest.raises(JaxftError, match=message):
        read_records(folder, "classify")


def test_a_damaged_table_of_examples_says_so(folder):
    table = folder / "examples.parquet"
    for content in (b"", table.read_bytes()[:-1], table.read_bytes() + b"x"):
        table.write_bytes(content)
        with pytest.raises(JaxftError, match="examples.parquet' is damaged"):
            read_records(folder, "classify")
    table.unlink()
    with pytest.raises(JaxftError, match="examples.parquet' cannot be read: No such file"):
        read_records(folder, "classify")


def test_examples_of_another_index_are_refused(folder):
    index = json.loads((folder / "index.json").read_text())
    index["class_names"].reverse()
    (folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(JaxftError, match="the examples are not those its index is of"):
        read_records(folder, "classify")


def test_records_of_another_task_and_no_records_are_refused(folder, tmp_path):
    with pytest.raises(JaxftError, match="was packed for the task 'classify', not 'regression'"):
        open_data(f"records:{folder}", task="regression")
    for place in (tmp_path / "photos", tmp_path / "nowhere"):
        with pytest.raises(JaxftError, match=r"holds no records \(no index.json\)"):
            open_data(f"records:{place}")
