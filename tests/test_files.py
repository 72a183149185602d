import pytest

from jaxft.files import open_whole, write_whole
from jaxft.paths import open_path


def _fail_half_way(path):
    with open_whole(path) as file:
        file.write(b"after")
        raise RuntimeError("half way")


def test_a_file_is_written_with_the_folders_above_it(tmp_path):
    path = tmp_path / "a" / "b" / "text"
    write_whole(path, "naïve\n")
    assert path.read_bytes() == "naïve\n".encode()
    assert [file.name for file in path.parent.iterdir()] == ["text"]


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(RuntimeError, match="half way"):
        _fail_half_way(path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_an_object_in_a_bucket_is_written_at_the_end_or_never(bucket):
    path = open_path("gs://bucket/a/b/text")
    write_whole(path, "naïve\n")
    assert bucket.read("a/b/text") == "naïve\n".encode()
    with pytest.raises(RuntimeError, match="half way"):
        _fail_half_way(path)
    bucket.fault = lambda method, name: 403
    with pytest.raises(OSError, match="the bucket says: Forbidden: .* as told"):
        write_whole(path, "other")
    assert bucket.read("a/b/text") == "naïve\n".encode()
    assert bucket.names() == ["a/b/text"]
