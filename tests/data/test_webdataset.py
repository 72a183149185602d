"""WebDataset shards: found by pattern, indexed once, read by offset; what is damaged or unclear is named."""

import gzip
import io
import json
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pictures import encode

from jaxft.data import open_data
from jaxft.data.tar import members
from jaxft.data.webdataset import find_shards, read_webdataset
from jaxft.errors import JaxftError


def picture(seed):
    return encode(np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8), "PNG")


def write_tar(file, samples):
    """Packs (name, bytes) one after the other."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for name, content in samples:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file


def shard(file, numbers, label=lambda number: (".cls", str(number % 3))):
    """A shard of numbered pictures; `label` gives ending and text."""
    samples = []
    for number in numbers:
        ending, text = label(number)
        samples += [(f"{number:06d}.png", picture(number)), (f"{number:06d}{ending}", text.encode())]
    return write_tar(file, samples)


@pytest.mark.parametrize("pattern", ["shards", "shards/a-{000..001}.tar", "shards/*.tar", "shards/a-{000,001}.tar"])
def test_shards_are_found_by_folder_range_list_and_glob(pattern, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for part in range(2):
        shard(tmp_path / f"shards/a-{part:03d}.tar", range(part * 10, part * 10 + 10))
    found, names = read_webdataset(pattern, "classify", {})
    assert names == ("0", "1", "2")
    source = found["all"]
    assert list(source.names) == [f"{number:06d}" for number in range(20)]
    np.testing.assert_array_equal(source.labels, np.arange(20) % 3)
    assert source.labels.dtype == np.int32
    for number in (19, 0, 7):
        assert source[number] == (picture(number), number % 3)


def test_pictures_are_read_from_many_threads_at_once(tmp_path):
    shard(tmp_path / "a.tar", range(60))
    source = read_webdataset(str(tmp_path), "classify", {})[0]["all"]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda number: source[number][0], [*range(60)] * 3)) == [picture(n) for n in range(60)] * 3


@pytest.mark.parametrize(
    "names", [("train-0.tar", "val-0.tar"), ("train/0.tar", "validation/0.tar"), ("x_training.0.tar", "x_valid.0.tar")]
)
def test_splits_are_read_off_the_names_of_files_and_folders(names, tmp_path):
    for place, name in enumerate(names):
        shard(tmp_path / name, range(place * 10, place * 10 + 10))
    found, _ = read_webdataset(str(tmp_path), "classify", {})
    assert {split: len(part) for split, part in found.items()} == {"train": 10, "val": 10}
    assert found["val"][3][0] == picture(13)


def test_keys_that_begin_anew_in_each_shard_are_told_apart_by_it(tmp_path):
    for part in "ab":
        shard(tmp_path / f"{part}.tar", range(3))
    assert list(read_webdataset(str(tmp_path), "classify", {})[0]["all"].names)[2:4] == ["a/000002", "b/000000"]


@pytest.mark.parametrize(
    ("task", "label", "labels", "names"),
    [
        ("classify", lambda n: (".txt", f" {'ant' if n else 'bee'}\n"), [1, 0, 0], ("ant", "bee")),
        ("classify", lambda n: (".cls", "bee" if n else "cat"), [1, 0, 0], ("bee", "cat")),
        ("classify", lambda n: (".json", json.dumps({"label": n * 2})), [0, 2, 4], ("0", "1", "2", "3", "4")),
        ("multilabel", lambda n: (".json", json.dumps({"label": [*range(n)]})), [[0, 0], [1, 0], [1, 1]], ("0", "1")),
        ("multilabel", lambda n: (".txt", "b;a" if n else ""), [[0, 0], [1, 1], [1, 1]], ("a", "b")),
        ("regression", lambda n: (".cls", str(n)), [0, 1, 2], ("value",)),
        ("regression", lambda n: (".json", json.dumps({"label": n / 4})), [0, 0.25, 0.5], ("value",)),
        (
            "soft",
            lambda n: (".json", json.dumps({"label": [n / 4, 1 - n / 4]})),
            [[0, 1], [0.25, 0.75], [0.5, 0.5]],
            ("0", "1"),
        ),
        ("soft", lambda n: (".json", json.dumps({"label": {"x": 1} if n else {"y": 1}})), [[0, 1], [1, 0], [1, 0]], ("x", "y")),
    ],
)
def test_labels_of_every_task_are_read(task, label, labels, names, tmp_path):
    shard(tmp_path / "a.tar", range(3), label)
    found, class_names = read_webdataset(str(tmp_path / "a.tar"), task, {})
    assert class_names == names
    np.testing.assert_array_equal(found["all"].labels, np.array(labels, np.int32 if task == "classify" else np.float32))


def test_endings_and_keys_may_be_named(tmp_path):
    samples = []
    for number in range(6):
        samples += [
            (f"in/{number}.left.png", picture(number)),
            (f"in/{number}.right.png", picture(100 + number)),
            (f"in/{number}.cls", b"0"),
            (f"in/{number}.json", json.dumps({"kind": "ab"[number % 2]}).encode()),
        ]
    write_tar(tmp_path / "a.tar", samples)
    found = open_data(f"wds:{tmp_path}?image=right.png&label=json&key=kind", val_fraction=0, test_fraction=0)
    assert found.class_names == ("a", "b")
    assert found.train[4][0] == picture(104)
    assert found.train.names[4] == "in/4"
    for source, message in [
        ("", "'in/0' has no picture; it has .left.png, .right.png, .cls, .json: name the ending"),
        ("?image=up.png", "'in/0' has no .up.png"),
        ("?image=left.png&label=txt", "'in/0' has no label .txt"),
        ("?image=left.png&label=json", "no key 'label' but kind: name the key with .key=KEY"),
        ("?image=left.png", "are of one class"),
        ("?imag=left.png", r"take no option 'imag' \(did you mean 'image'"),
    ]:
        with pytest.raises(JaxftError, match=message):
            open_data(f"wds:{tmp_path}{source}")


def test_groups_are_parts_of_keys_that_no_split_divides(tmp_path):
    shard(tmp_path / "a.tar", range(120), lambda number: (".cls", str(number % 2)))
    found = open_data(rf"wds:{tmp_path}?group=^(\d{{5}})", val_fraction=0.2, test_fraction=0.2)
    held = [{name[:5] for name in part.names} for part in (found.train, found.val, found.test)]
    assert not held[0] & held[1]
    assert not held[0] & held[2]
    assert not held[1] & held[2]
    assert [len(part) for part in held] == [8, 2, 2]


def test_undecodable_pictures_are_left_out_up_to_a_share(tmp_path):
    samples = [
        (f"{n}.{end}", content) for n in range(20) for end, content in (("png", picture(n)), ("cls", str(n % 2).encode()))
    ]
    samples[6] = ("3.png", picture(3)[:40])
    write_tar(tmp_path / "a.tar", samples)
    with pytest.raises(JaxftError, match=r"1 of 20 pictures of all cannot be read \(3: "):
        open_data(f"wds:{tmp_path}")
    assert sum(len(part) for part in open_data(f"wds:{tmp_path}", max_bad_fraction=0.1).ours.values()) == 19


# Damage.


def test_a_shard_cut_anywhere_is_named(tmp_path):
    file = shard(tmp_path / "a.tar", range(3))
    whole = file.read_bytes()
    last = members(file)[-1]
    end = last.offset + 512
    for length in [*range(0, end, 301), end - 511, end]:
        file.write_bytes(whole[:length])
        with pytest.raises(JaxftError, match=r"a\.tar' (is cut short|holds no)|cut short, or no tar|hold no samples"):
            read_webdataset(str(file), "classify", {})
    file.write_bytes(whole[: end + 512])  # with its end mark it is whole
    assert len(read_webdataset(str(file), "classify", {})[0]["all"]) == 3


def test_joined_tars_are_refused_and_not_read_half(tmp_path):
    first, second = shard(tmp_path / "a.tar", range(3)), shard(tmp_path / "b.tar", range(3, 6))
    first.write_bytes(first.read_bytes() + second.read_bytes())
    with pytest.raises(JaxftError, match=r"a\.tar' holds more behind its end mark"):
        read_webdataset(str(first), "classify", {})


def test_a_shard_that_becomes_shorter_is_named_when_it_is_read(tmp_path):
    file = shard(tmp_path / "a.tar", range(3))
    source = read_webdataset(str(file), "classify", {})[0]["all"]
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(JaxftError, match=r"a\.tar' became shorter"):
        _ = source[2]
    file.unlink()
    with pytest.raises(JaxftError, match=r"cannot read .*a\.tar': No such file"):
        _ = source[0]


def test_compressed_shards_are_refused_with_what_to_do(tmp_path):
    file = shard(tmp_path / "a.tar", range(3))
    packed = tmp_path / "gz" / "a.tar.gz"
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress(file.read_bytes()))
    for pattern in (packed, packed.parent):
        with pytest.raises(JaxftError, match=r"a\.tar\.gz' is compressed \(gzip\).* Unpack it to a plain \.tar"):
            read_webdataset(str(pattern), "classify", {})


def test_links_are_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("1.png")
        info.type, info.linkname = tarfile.LNKTYPE, "0.png"
        archive.addfile(info)
    with pytest.raises(JaxftError, match=r"'1\.png' is a link"):
        read_webdataset(str(tmp_path), "classify", {})


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "hold no samples"),
        ([("0.cls", b"1")], "'0' has no picture; it has .cls"),
        ([("0.png", b"x")], "'0' has no label"),
        ([("0.png", b"x"), ("0.jpg", b"x"), ("0.cls", b"1")], r"several pictures \(.png, .jpg\)"),
        ([("0.png", b"x"), ("0.cls", b"1"), ("1.png", b"x")], "'1' has no label .cls"),
        ([("0.png", b"x"), ("0.cls", b"1"), ("0.cls", b"1")], "'0.cls' is there twice"),
        ([("0.png", b"x"), ("0.cls", b"\xff")], "'0': .cls is not text"),
        ([("0.png", b"x"), ("0.json", b"{")], "'0': .json is not text, or not JSON"),
        ([("0.png", b"x"), ("0.json", b"[1]")], "has no key 'label' but list"),
        ([("0.png", b"x"), ("0.cls", b"")], "must be a class number from 0 or a name, not ''"),
        (
            [("0.png", b"x"), ("0.cls", b"1"), ("1.png", b"x"), ("1.cls", b"cat")],
            r"names here \('cat'\) and numbers elsewhere \(1\)",
        ),
    ],
)
def test_samples_that_do_not_fit_are_named(samples, message, tmp_path):
    write_tar(tmp_path / "a.tar", samples)
    with pytest.raises(JaxftError, match=message) as error:
        read_webdataset(str(tmp_path), "classify", {})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("task", "label", "message"),
    [
        ("regression", "cat", "'000000': the label of a regression must be a number, not 'cat'"),
        ("regression", "nan", "must be a finite number"),
        ("multilabel", 3, "must be a list of class numbers or names, not 3"),
        ("multilabel", [-1], r"not \[-1\]"),
        ("multilabel", [True], r"not \[True\]"),
        ("classify", [1], r"not \[1\]"),
        ("classify", 10**9, "is no class number"),
        ("soft", 1, "must be a list with the share of each class"),
        ("soft", [0.5, 0.6], "sum to 1; the least is 0.5, the sum 1.1"),
        ("soft", [1.5, -0.5], "the least is -0.5"),
        ("soft", ["a", "b"], "soft labels must be numbers"),
    ],
)
def test_labels_that_do_not_fit_are_named(task, label, message, tmp_path):
    shard(tmp_path / "a.tar", range(2), lambda number: (".json", json.dumps({"label": label})))
    with pytest.raises(JaxftError, match=message):
        read_webdataset(str(tmp_path), task, {})


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{root}/nothing", "no shards '.*nothing': give a folder, a glob or"),
        ("{root}/b-{{0..2}}.tar", r"2 of the 3 shards of .* are missing, first '.*b-1\.tar'"),
        ("{root}/b-{{2..1}}.tar", r"the range \{2\.\.1\} of .* is empty"),
        ("{root}/empty", "holds no .tar files"),
    ],
)
def test_shards_that_are_missing_are_named(pattern, message, tmp_path):
    (tmp_path / "empty").mkdir()
    shard(tmp_path / "b-0.tar", range(2))
    with pytest.raises(JaxftError, match=message):
        find_shards(pattern.format(root=tmp_path))


def test_one_shard_that_says_no_split_among_others_is_named(tmp_path):
    shard(tmp_path / "train-0.tar", range(2))
    shard(tmp_path / "more.tar", range(2, 4))
    with pytest.raises(JaxftError, match=r"more\.tar' says no split"):
        read_webdataset(str(tmp_path), "classify", {})
