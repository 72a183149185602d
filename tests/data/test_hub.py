"""Data sets of Hugging Face, as the library `datasets` writes them into folders; without a network."""

import hashlib
import json
import os
import subprocess
import sys
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import datasets
import numpy as np
import pytest
from pictures import encode

from jaxft.data import open_data
from jaxft.data.hub import read_hub
from jaxft.errors import JaxftError

NAMES = ["cat", "ant", "bee"]  # in no order of the alphabet
PICTURES = [encode(np.random.default_rng(n).integers(0, 256, (5, 6, 3), dtype=np.uint8), "PNG") for n in range(30)]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def made(rows=range(30), **columns):
    """A data set of the pictures `rows`, with `image`, `label` and more columns: name -> (feature, value of a row)."""
    columns = {"label": (datasets.ClassLabel(names=NAMES), lambda row: row % 3), **columns}
    features = datasets.Features({"image": datasets.Image(), **{name: kind for name, (kind, _) in columns.items()}})
    values = {name: [value(row) for row in rows] for name, (_, value) in columns.items()}
    return datasets.Dataset.from_dict({"image": [{"bytes": PICTURES[row], "path": None} for row in rows], **values}, features)


def saved(data, folder):
    data.save_to_disk(str(folder))
    return folder


def cloned(folder, **splits):
    """A repository as git gives it: Parquet files by split."""
    (folder / "data").mkdir(parents=True)
    for split, data in splits.items():
        data.to_parquet(str(folder / "data" / f"{split}-00000-of-00001.parquet"))
    return folder


def test_a_saved_data_set_is_opened_and_keeps_the_order_of_its_classes(tmp_path):
    found = open_data(f"hf:{saved(made(), tmp_path / 'saved')}", val_fraction=0.2, test_fraction=0.2)
    assert found.class_names == ("cat", "ant", "bee")
    assert [len(part) for part in (found.train, found.val, found.test)] == [18, 6, 6]
    for part in (found.train, found.val, found.test):
        for row, name in enumerate(part.names):
            number = int(name.removeprefix("all/"))
            assert part[row] == (PICTURES[number], number % 3)
            assert part.digests[row] == hashlib.sha256(PICTURES[number]).hexdigest()


def test_saved_splits_are_the_splits(tmp_path):
    parts = {"train": made(range(18)), "validation": made(range(18, 24)), "test": made(range(24, 30)), "extra": made(range(3))}
    found = open_data(f"hf:{saved(datasets.DatasetDict(parts), tmp_path / 'saved')}")
    assert [len(part) for part in (found.train, found.val, found.test)] == [18, 6, 6]
    assert list(found.val.names[:2]) == ["val/0", "val/1"]
    assert found.val[1][0] == PICTURES[19]
    assert found.test[5][0] == PICTURES[29]
    assert found.notes == ()


def test_a_cloned_repository_is_opened(tmp_path):
    found = open_data(f"hf:{cloned(tmp_path / 'repo', train=made(range(20)), test=made(range(20, 30)))}", val_fraction=0.25)
    assert found.class_names == ("cat", "ant", "bee")
    assert [len(part) for part in (found.train, found.val, found.test)] == [14, 6, 10]
    assert found.test[3] == (PICTURES[23], 23 % 3)


def test_rows_that_were_chosen_before_saving_are_the_rows(tmp_path):
    found, _ = read_hub(str(saved(made().select([7, 4, 20]), tmp_path / "saved")), "classify", {})
    assert [found["all"][row] for row in range(3)] == [(PICTURES[row], row % 3) for row in (7, 4, 20)]


def test_a_test_split_whose_labels_are_secret_is_left_out(tmp_path):
    secret = made(range(20, 30), label=(datasets.ClassLabel(names=NAMES), lambda row: -1))
    parts = datasets.DatasetDict({"train": made(range(20)), "test": secret})
    found = open_data(f"hf:{saved(parts, tmp_path / 'saved')}")
    assert found.test is None
    assert len(found.train) + len(found.val) == 20


def test_columns_are_chosen_where_there_are_several(tmp_path):
    coarse = (datasets.ClassLabel(names=["x", "y"]), lambda row: row % 2)
    folder = saved(made(coarse=coarse, patient=(datasets.Value("string"), lambda row: f"p{row // 5}")), tmp_path / "saved")
    with pytest.raises(JaxftError, match=r"has the columns of classes fine, coarse: choose one with \?label=COLUMN"):
        open_data(f"hf:{saved(made(coarse=coarse).rename_column('label', 'fine'), tmp_path / 'two')}")
    found = open_data(f"hf:{folder}?label=coarse&group=patient", val_fraction=0.2, test_fraction=0)
    assert found.class_names == ("x", "y")
    assert not set(found.train.groups) & set(found.val.groups)
    for text, message in [
        ("?label=coars", r"has no column 'coars' \(did you mean 'coarse'"),
        ("?image=patient", "the column 'patient' holds no pictures"),
    ]:
        with pytest.raises(JaxftError, match=message):
            open_data(f"hf:{folder}{text}")


def test_a_data_set_without_pictures_or_classes_says_what_it_has(tmp_path):
    bare = made().remove_columns(["image"])
    with pytest.raises(JaxftError, match="has no column of pictures, only label: choose one"):
        read_hub(str(saved(bare, tmp_path / "a")), "classify", {})
    with pytest.raises(JaxftError, match="has no column of classes, only image: choose one"):
        read_hub(str(saved(made().remove_columns(["label"]), tmp_path / "b")), "classify", {})
    twice = made().add_column("other", [{"bytes": PICTURES[0], "path": None}] * 30, feature=datasets.Image())
    with pytest.raises(JaxftError, match="has the columns of pictures image, other: choose one with .image=COLUMN"):
        read_hub(str(saved(twice, tmp_path / "c")), "classify", {})


def test_labels_of_other_tasks_are_read(tmp_path):
    several = (datasets.List(datasets.ClassLabel(names=NAMES)), lambda row: [*range(row % 3)])
    found, names = read_hub(str(saved(made(label=several), tmp_path / "a")), "multilabel", {})
    assert names == ("cat", "ant", "bee")
    np.testing.assert_array_equal(found["all"].labels[:3], [[0, 0, 0], [1, 0, 0], [1, 1, 0]])
    value = (datasets.Value("float32"), lambda row: row / 4)
    found, _ = read_hub(str(saved(made(label=value), tmp_path / "b")), "regression", {})
    np.testing.assert_array_equal(found["all"].labels, np.arange(30, dtype=np.float32) / 4)
    shares = {
        "x": (datasets.Value("float64"), lambda row: row / 30),
        "y": (datasets.Value("float64"), lambda row: 1 - row / 30),
    }
    found, names = read_hub(str(saved(made(**shares).remove_columns(["label"]), tmp_path / "c")), "soft", {})
    assert names == ("x", "y")
    np.testing.assert_allclose(found["all"].labels[15], [0.5, 0.5])


def test_a_row_without_a_picture_is_named(tmp_path):
    empty = datasets.Dataset.from_dict({"image": [None, None], "label": [0, 1]}, made().features)
    source = read_hub(str(saved(empty, tmp_path / "a")), "classify", {})[0]["all"]
    with pytest.raises(JaxftError, match="row 1 of all has no picture"):
        _ = source[1]


def test_a_damaged_folder_says_so(tmp_path):
    folder = saved(made(), tmp_path / "saved")
    file = next(folder.glob("*.arrow"))
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(JaxftError, match=r"hf:.*saved cannot be opened"):
        open_data(f"hf:{folder}")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(JaxftError, match=r"hf:.*nothing cannot be opened"):
        open_data(f"hf:{tmp_path / 'nothing'}")


_ASK = """
import sys
from jaxft.data import open_data
from jaxft.errors import JaxftError
for source in sys.argv[1:]:
    try:
        found = open_data(source, val_fraction=0.25, test_fraction=0.25)
        print(*found.class_names, *(f"{name}={digest}" for name, digest in zip(found.train.names, found.train.digests)))
    except JaxftError as error:
        print(error)
"""
_COMMIT = "0123456789" * 4


def ask(sources, root, tmp_path):
    """The line that opening each source prints, where a hub on the loopback has `somebody/pictures` in `root`."""

    class Hub(BaseHTTPRequestHandler):
        def say(self, status, content=b"", **headers):
            self.send_response(status)
            headers = {"X-Repo-Commit": _COMMIT, "ETag": f'"{hashlib.sha256(content).hexdigest()}"', **headers}
            for name, value in {**headers, "Content-Length": len(content)}.items():
                self.send_header(name, str(value))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def entries(self, inside=""):
            found = []
            for path in sorted((root / inside).rglob("*")):
                kind, size = ("file", path.stat().st_size) if path.is_file() else ("directory", 0)
                found.append({"type": kind, "path": path.relative_to(root).as_posix(), "size": size, "oid": "0" * 40})
            return found

        def do_GET(self):
            path = urllib.parse.unquote(self.path.partition("?")[0])
            asked.append(path)
            if "somebody/pictures" not in path or "/gone" in path:
                return self.say(404, **{"X-Error-Code": "RepoNotFound" if "pictures" not in path else "RevisionNotFound"})
            if path.startswith("/api/datasets/somebody/pictures/tree/"):
                inside = path.partition("/tree/")[2].partition("/")[2]
                found = self.entries(inside)
                if "recursive=true" not in self.path.lower():
                    found = [entry for entry in found if "/" not in entry["path"].removeprefix(inside).strip("/")]
                return self.say(200, json.dumps(found).encode())
            if path.startswith("/api/datasets/somebody/pictures"):
                found = {"id": "somebody/pictures", "sha": _COMMIT, "private": False, "tags": [], "downloads": 0, "likes": 0}
                found["siblings"] = [{"rfilename": entry["path"]} for entry in self.entries() if entry["type"] == "file"]
                return self.say(200, json.dumps(found).encode())
            file = root / path.partition("/resolve/")[2].partition("/")[2]
            if not file.is_file():
                return self.say(404, **{"X-Error-Code": "EntryNotFound"})
            return self.say(200, file.read_bytes())

        do_HEAD = do_GET

        def do_POST(self):
            asked.append(self.path)
            wanted = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()).get("paths", [])
            self.say(200, json.dumps([entry for entry in self.entries() if entry["path"] in wanted]).encode())

        def log_message(self, *arguments):
            pass

    asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
    }
    try:
        command = [sys.executable, "-c", _ASK, *sources]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **hub}, check=True)
    finally:
        server.shutdown()
        server.server_close()
    return done.stdout.splitlines(), asked


def test_a_data_set_on_the_hub_is_downloaded_and_what_is_not_there_is_said(tmp_path):
    root = cloned(tmp_path / "repo", train=made(range(24)))
    places = ("somebody/pictures@v2", "nobody/nothing", "somebody/pictures:large", "somebody/pictures@gone")
    (said, *refused), asked = ask([f"hf:{place}" for place in places], root, tmp_path)
    assert said.startswith("cat ant bee ")
    rows = dict(part.split("=") for part in said.split()[3:])
    assert 12 <= len(rows) <= 18
    for name, digest in rows.items():
        assert digest == hashlib.sha256(PICTURES[int(name.removeprefix("train/"))]).hexdigest()
    assert any("v2" in path for path in asked)
    for place, line, reason in zip(places[1:], refused, ("DatasetNotFoundError", "ValueError", ""), strict=True):
        assert line.startswith(f"hf:{place} cannot be opened ({reason}")


def test_what_is_neither_a_folder_nor_a_repository_is_refused():
    with pytest.raises(JaxftError, match="a data set on the hub is written hf:OWNER/REPO"):
        read_hub("what is/this/here", "classify", {})


def test_without_the_library_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(JaxftError, match=r"need the library datasets: pip install 'jaxft\[datasets\]'"):
        open_data("hf:owner/repo")
