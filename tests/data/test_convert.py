"""Any data set becomes records and stays the same data set; what is half written, full or in the way is said."""

import contextlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tarfile
import time

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds
from filelock import FileLock
from pictures import encode, smooth
from PIL import Image

from jaxft.data import decode, open_data
from jaxft.data.convert import convert_data
from jaxft.data.records import read_records
from jaxft.errors import JaxftError

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 5, 7, 3), dtype=np.uint8)


class Examples:
    """A data set of somebody's own."""

    classes = ("ant", "bee")

    def __len__(self):
        return 40

    def __getitem__(self, row):
        return {"image": encode(PIXELS[row], "PNG"), "label": row % 2}


@pytest.fixture
def photos(draw):
    return draw(*(f"{name}/{number:02d}.png" for name in "ab" for number in range(20)))


@pytest.fixture
def sources(photos, draw, tmp_path):
    """name -> (source, options of `open_data`): one of every kind."""
    paths = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    rows = [f"{path},{path[0]},patient {number // 4}" for number, path in enumerate(paths)]
    (photos / "table.csv").write_text("\n".join(["path,label,group", *rows]))
    shares = [f"{path},{number / 40},{1 - number / 40}" for number, path in enumerate(paths)]
    (photos / "soft.csv").write_text("\n".join(["path,x,y", *shares]))
    (photos / "several.csv").write_text(
        "\n".join(["path,label", *(f"{path},{'p;q' if path[0] == 'a' else 'q'}" for path in paths)])
    )
    (photos / "values.csv").write_text(
        "\n".join(["path,label", *(f"{path},{number / 7}" for number, path in enumerate(paths))])
    )
    contents = [(photos / path).read_bytes() for path in paths]
    table = pa.table({"image": contents, "label": [path[0] for path in paths]})
    pq.write_table(table, tmp_path / "table.parquet", row_group_size=7)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["z", "y"])})
    rows = {"image": [{"bytes": content, "path": None} for content in contents], "label": [n % 2 for n in range(40)]}
    datasets.Dataset.from_dict(rows, features).save_to_disk(str(tmp_path / "saved"))
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for number, content in enumerate(contents):
            for ending, part in (("png", content), ("cls", str(number % 2).encode())):
                info = tarfile.TarInfo(f"{number:03d}.{ending}")
                info.size = len(part)
                archive.addfile(info, io.BytesIO(part))
    parted = draw(
        *(f"{split}/{name}/{n}.png" for split in ("train", "val", "test") for name in "ab" for n in range(4)), under="parted"
    )
    return {
        "folder": (f"folder:{photos}", {}),
        "a folder of splits": (f"folder:{parted}", {}),
        "csv with groups": (f"csv:{photos / 'table.csv'}", {}),
        "csv of soft labels": (f"csv:{photos / 'soft.csv'}", {"task": "soft"}),
        "csv of several labels": (f"csv:{photos / 'several.csv'}", {"task": "multilabel"}),
        "csv of values": (f"csv:{photos / 'values.csv'}", {"task": "regression"}),
        "parquet": (f"parquet:{tmp_path / 'table.parquet'}", {}),
        "wds": (f"wds:{tmp_path / 'a.tar'}", {}),
        "arrays": ((PIXELS, np.arange(40) % 3), {"class_names": ["ant", "bee", "cat"]}),
        "grey arrays": ((PIXELS[..., 0], np.arange(40) % 3), {}),
        "an object": (Examples(), {}),
        "hf": (f"hf:{tmp_path / 'saved'}", {}),
    }


KINDS = ("folder", "a folder of splits", "csv with groups", "csv of soft labels", "csv of several labels", "csv of values")
KINDS += ("parquet", "hf", "wds", "arrays", "grey arrays", "an object")


def test_every_kind_of_source_stays_the_same_data_set(sources, tmp_path):
    assert set(KINDS) == set(sources)
    for number, kind in enumerate(KINDS):
        source, options = sources[kind]
        out = tmp_path / f"records {number}"
        made = convert_data(source, out, shards=3, **options)
        before = open_data(source, **options)
        after = open_data(f"records:{out}", task=options.get("task", "classify"))
        assert after.class_names == before.class_names, kind
        for split in ("train", "val", "test"):
            one, other = getattr(before, split), getattr(after, split)
            assert list(one.names) == list(other.names), kind
            assert one.groups == other.groups, kind
            np.testing.assert_array_equal(one.labels, other.labels)
            assert one.labels.dtype == other.labels.dtype
            for row in range(len(one)):
                first, second = one[row][0], other[row][0]
                assert isinstance(second, bytes)
                if isinstance(first, np.ndarray):
                    channels = 1 if first.ndim == 2 else 3
                    np.testing.assert_array_equal(decode(first, channels), decode(second, channels))
                else:
                    assert second == (first if isinstance(first, bytes) else first.read_bytes()), kind
        # Of pixels there is no fingerprint but that of the names and labels.
        assert (after.fingerprint == before.fingerprint) == ("arrays" not in kind), kind
        assert made.reencoded == (40 if "arrays" in kind else 0)
        assert [note for note in before.notes if "read once" not in note] == list(after.notes)


class JaxftTestConverted(tfds.core.GeneratorBasedBuilder):
    """Forty small pictures in two splits."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=["low", "high"])}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(range(30)), "test": self._generate_examples(range(30, 40))}

    def _generate_examples(self, rows):
        for row in rows:
            yield row, {"image": io.BytesIO(encode(PIXELS[row], "PNG")), "label": row % 2}


def test_decoded_pictures_of_tfds_are_kept_pixel_for_pixel(tmp_path):
    options = {"data_dir": str(tmp_path / "tfds")}
    convert_data("tfds:jaxft_test_converted", tmp_path / "out", **options)
    before, after = open_data("tfds:jaxft_test_converted", **options), open_data(f"records:{tmp_path / 'out'}")
    assert after.class_names == before.class_names == ("low", "high")
    for one, other in ((before.train, after.train), (before.val, after.val), (before.test, after.test)):
        assert list(one.names) == list(other.names)
        np.testing.assert_array_equal(one.labels, other.labels)
        for row in range(len(one)):
            np.testing.assert_array_equal(one[row][0], decode(other[row][0]))


def test_records_of_records_are_the_same_files(photos, tmp_path):
    convert_data(photos, tmp_path / "one", shards=2)
    convert_data(f"records:{tmp_path / 'one'}", tmp_path / "two", shards=2)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


@pytest.mark.parametrize(("shards", "files"), [(1, 1), (3, 3), (40, 40), (100, 40), (None, 1)])
def test_shards_are_as_many_as_asked_for(shards, files, photos, tmp_path):
    made = convert_data(photos, tmp_path / "out", shards=shards)
    assert made.shards == files == len(list((tmp_path / "out").glob("*.array_record")))
    assert f"40 all; {files} shards" in str(made)
    assert json.loads(made.to_json())["splits"] == {"all": 40}
    source = read_records(tmp_path / "out", "classify")[0]["all"]
    assert source[39][0] == (photos / source.names[39]).read_bytes()


def test_a_shard_is_ended_when_it_is_large(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxft.data.convert.SHARD_BYTES", 1000)
    made = convert_data(photos, tmp_path / "out")
    assert made.shards > 3
    assert len(read_records(tmp_path / "out", "classify")[0]["all"]) == 40


def test_larger_pictures_are_made_smaller_and_smaller_ones_are_left(tmp_path):
    kinds = {"a/1.jpg": "JPEG", "a/2.png": "PNG", "a/3.webp": "WEBP", "b/4.bmp": "BMP", "b/5.png": "PNG"}
    large = smooth(60, 90)
    for name, kind in kinds.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(large if name != "b/5.png" else large[:20, :30])
        (tmp_path / "in" / name).write_bytes(encode(image.convert("L") if name == "a/2.png" else image, kind))
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    (tmp_path / "in/b/6.jpg").write_bytes(encode(Image.fromarray(large), "JPEG", exif=exif))
    made = convert_data(tmp_path / "in", tmp_path / "out", max_side=45)
    assert made.reencoded == 5
    source = read_records(tmp_path / "out", "classify")[0]["all"]
    found = {name: Image.open(io.BytesIO(source[row][0])) for row, name in enumerate(source.names)}
    assert {name: image.format for name, image in found.items()} == {
        "a/1.jpg": "JPEG", "a/2.png": "PNG", "a/3.webp": "JPEG", "b/4.bmp": "PNG", "b/5.png": "PNG", "b/6.jpg": "JPEG"
    }  # fmt: skip
    assert {name: image.size for name, image in found.items()} == {
        "a/1.jpg": (45, 30), "a/2.png": (45, 30), "a/3.webp": (45, 30), "b/4.bmp": (45, 30), "b/5.png": (30, 20),
        "b/6.jpg": (30, 45),
    }  # fmt: skip
    assert found["a/2.png"].mode == "L"
    wanted = np.asarray(Image.fromarray(large).resize((45, 30), Image.Resampling.LANCZOS), float)
    assert np.abs(np.asarray(found["b/4.bmp"], float) - wanted).max() == 0
    assert np.abs(np.asarray(found["a/1.jpg"], float) - wanted).mean() < 3
    convert_data(tmp_path / "in", tmp_path / "poor", max_side=45, quality=20)
    assert len(read_records(tmp_path / "poor", "classify")[0]["all"][0][0]) < len(source[0][0])


def test_undecodable_pictures_are_left_out_up_to_a_share_and_said(photos, tmp_path):
    (photos / "a/03.png").write_bytes(b"")
    with pytest.raises(JaxftError, match=r"1 of 40 pictures of all cannot be read \(a/03\.png"):
        convert_data(photos, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    made = convert_data(photos, tmp_path / "out", max_bad_fraction=0.1)
    assert made.splits == {"all": 39}
    assert "are left out (a/03.png" in str(made)


# What is in the way.


def test_a_folder_that_exists_is_kept_unless_it_holds_records_to_be_replaced(photos, tmp_path):
    out = tmp_path / "out"
    first = convert_data(photos, out, shards=1)
    with pytest.raises(JaxftError, match=r"out' exists: choose another folder, or overwrite it"):
        convert_data(photos, out)
    (photos / "a/00.png").unlink()
    second = convert_data(photos, out, shards=2, overwrite=True)
    assert (first.splits, second.splits) == ({"all": 40}, {"all": 39})
    assert len(read_records(out, "classify")[0]["all"]) == 39
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "photos"]
    with pytest.raises(JaxftError, match="holds no records"):
        convert_data(f"records:{out}", photos, overwrite=True)
    assert len(list(photos.rglob("*.png"))) == 39


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shards": 0}, "shards is 0"),
        ({"max_side": 0}, "max_side is 0"),
        ({"quality": 101}, "quality is 101: .* at most 100"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(options, message, photos, tmp_path):
    with pytest.raises(JaxftError, match=message):
        convert_data(photos, tmp_path / "out", **options)


def test_pixels_of_other_channels_are_refused(tmp_path):
    with pytest.raises(JaxftError, match="all/0: records hold pictures of 1 or 3 channels, not 4"):
        convert_data((np.zeros((4, 5, 5, 4), np.uint8), [0, 1, 0, 1]), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_second_conversion_into_the_same_folder_waits_for_nobody(photos, tmp_path):
    (tmp_path / ".out.unfinished").mkdir()
    with FileLock(tmp_path / ".out.unfinished" / "lock"), pytest.raises(JaxftError, match="another process converts into"):
        convert_data(photos, tmp_path / "out")


def test_a_full_disk_says_so_and_leaves_nothing(photos, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
        with pytest.raises(JaxftError, match="cannot write the records .*too large.*; nothing was kept"):
            convert_data(photos, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


_SLOW = """
import sys, time
import jaxft.data.convert as convert
pack = convert.pack
def slow(*arguments):
    print("packs", flush=True)
    time.sleep(0.2)
    return pack(*arguments)
convert.pack = slow
convert.convert_data(sys.argv[1], sys.argv[2], shards=10)
"""


def test_a_killed_conversion_leaves_nothing_that_opens_and_can_be_started_again(photos, tmp_path):
    out = tmp_path / "out"
    job = subprocess.Popen([sys.executable, "-c", _SLOW, str(photos), str(out)], stdout=subprocess.PIPE, env={**os.environ})
    for _ in range(10):
        job.stdout.readline()
    job.kill()
    job.wait()
    job.stdout.close()
    assert not out.exists()
    left = tmp_path / ".out.unfinished"
    assert len(list(left.glob("*.array_record"))) > 1
    with pytest.raises(JaxftError, match="holds no records"):
        read_records(left, "classify")
    convert_data(photos, out, shards=2)
    assert sorted(path.name for path in out.iterdir()) == [
        "all-00000.array_record", "all-00001.array_record", "examples.parquet", "index.json"
    ]  # fmt: skip
    assert not left.exists()


def test_progress_is_told(photos, tmp_path, monkeypatch):
    clock = iter(np.arange(0, 1000, 3.0))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    said = []
    with contextlib.suppress(StopIteration):
        convert_data(photos, tmp_path / "out", say=said.append)
    assert said[0] == "all: 2 of 40"
