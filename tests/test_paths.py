"""What a text names, and how trouble with a bucket is said."""

import errno
import importlib.util
from pathlib import Path

import pytest
from etils import epath

from jaxft.errors import JaxftError
from jaxft.paths import UNREACHABLE, is_remote, list_files, make_folder, open_path, reaching, remove_folder


def test_a_text_names_a_path_on_this_computer_or_one_in_a_bucket(tmp_path):
    local, remote = open_path(str(tmp_path)), open_path("gs://bucket/runs/one")
    assert type(local) is type(tmp_path)
    assert not is_remote(local)
    assert isinstance(remote, epath.Path)
    assert is_remote(remote)
    assert str(remote / "checkpoints") == "gs://bucket/runs/one/checkpoints"
    assert open_path(remote) == remote


@pytest.mark.parametrize("text", ["s3://bucket/run", "az://bucket/run", "gcs://bucket/run", "gs://", "gs:///"])
def test_another_kind_of_storage_is_refused_in_one_line(text):
    with pytest.raises(JaxftError) as raised:
        open_path(text)
    assert str(raised.value) == f"'{text}' is no folder and no gs://BUCKET/FOLDER: mount another kind of storage as a folder"


def test_without_the_package_for_buckets_the_extra_to_install_is_named(monkeypatch):
    plain = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "gcsfs" else plain(name, *more))
    with pytest.raises(JaxftError, match=r"^'gs://bucket/run' needs the package gcsfs: pip install 'jaxft\[gcs\]'$"):
        open_path("gs://bucket/run")
    assert open_path("run") == Path("run")


@pytest.mark.parametrize("status", [400, 401, 403])
def test_what_a_bucket_refuses_is_an_oserror_of_one_line(bucket, status):
    path = open_path("gs://bucket/run/config.json")
    bucket.fault = lambda method, name: status
    for action in (path.read_text, path.exists, lambda: path.write_text("{}")):
        with pytest.raises(OSError, match="^.+$") as raised, reaching(path):
            action()
        assert raised.value.errno == UNREACHABLE
        assert raised.value.strerror.startswith("the bucket says: ")
        assert "as told" in raised.value.strerror


def test_an_object_or_a_bucket_that_is_not_there_is_told_from_trouble(bucket):
    for text in ("gs://bucket/run", "gs://nowhere/run"):
        path = open_path(text)
        with pytest.raises(FileNotFoundError) as raised, reaching(path):
            path.read_text()
        assert raised.value.strerror.startswith("there is no ")


def test_errors_on_this_computer_and_our_own_stay_as_they_are(tmp_path):
    for path, error in ((tmp_path, KeyError("x")), (open_path("gs://bucket/run"), JaxftError("x"))):
        with pytest.raises(type(error)) as raised, reaching(path):
            raise error
        assert raised.value is error
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="No space") as raised, reaching(open_path("gs://bucket/run")):
        raise full
    assert raised.value is full


def test_files_are_listed_and_removed_the_same_here_and_there(bucket, tmp_path):
    for folder in (tmp_path / "run", open_path("gs://bucket/run")):
        make_folder(folder / "empty")
        for name in ("b", "a/deep/1", "a/2"):
            make_folder((folder / name).parent)
            (folder / name).write_bytes(b"x")
        assert list_files(folder) == ["a/2", "a/deep/1", "b"]
        remove_folder(folder / "a")
        assert list_files(folder) == ["b"]
        remove_folder(folder / "nowhere")
    assert bucket.names() == ["run/b"]


def test_what_others_write_and_remove_is_seen_at_once(bucket):
    folder = open_path("gs://bucket/run")
    bucket.write("run/a", b"")
    assert list_files(folder) == ["a"]
    bucket.write("run/b", b"")
    assert list_files(folder) == ["a", "b"]
    assert (folder / "b").exists()
    del bucket.objects["run/b"]
    assert not (folder / "b").exists()
