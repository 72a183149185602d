"""A file comes whole from servers that stall, cut short, send elsewhere, lie and refuse, or a clear error says why not."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time

import filelock
import pytest

from jaxft.errors import JaxftError
from jaxft.weights import fetch
from jaxft.weights.download import Patience, download

BODY = hashlib.sha256(b"seed").digest() * (1 << 14)  # eight pieces of 64 kB
HALF = len(BODY) // 2
SHA256 = hashlib.sha256(BODY).hexdigest()
QUICK = Patience(connect=2, read=0.3, tries=3, pause=0.01, lock=5)


class _Site(http.server.BaseHTTPRequestHandler):
    """Each path is a way to misbehave; `server.times` counts how often it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = self.path.split("?")[0].rsplit("/", 1)[-1]
        times = self.server.times[path] = self.server.times.get(path, 0) + 1
        self.server.asked.append((self.path, self.headers.get("Range")))
        start = self._start()
        if path == "moved":
            self._answer(302, b"", {"Location": "/whole"})
        elif path == "unencrypted":
            self._answer(302, b"", {"Location": "http://weights.example/net.pth"})
        elif path in ("401", "403", "404", "418"):
            self._answer(int(path), b"no")
        elif path == "busy" and times < 3:
            self._answer(503, b"later", {"Retry-After": "0"})
        elif path == "always_busy":
            self._answer(503, b"later")
        elif path in ("short", "short_unnamed") and times < 3:
            self._send(start, cut=HALF // 2, etag="" if path == "short_unnamed" else '"one"')
        elif path == "always_short":
            self._send(start, cut=0 if times > 1 else HALF, etag='"one"')
        elif path == "stall" and times < 2:
            self._send(start, cut=HALF, etag='"one"', stall=True)
        elif path == "changed":
            self._send(0, cut=HALF, etag='"old"') if times == 1 else self._send(0, etag='"new"')
        elif path == "ignores_range":
            self._send(0, cut=HALF if times == 1 else None, etag='"one"')
        elif path == "other_part" and times == 2:
            self._send(start + 7, etag='"one"')
        elif path == "other_part":
            self._send(start, cut=HALF if times == 1 else None, etag='"one"')
        elif path == "already_whole":
            self._send(start, etag='"one"', lie=1) if times == 1 else self._answer(
                416, b"", {"Content-Range": f"bytes */{len(BODY)}"}
            )
        elif path == "lies_long":
            self._send(start, etag='"one"', lie=100)
        elif path == "lies_short":
            self._send(start, etag='"one"', lie=-100)
        else:
            self._send(start, etag='"one"')

    def _start(self):
        asked = self.headers.get("Range", "")
        return int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0

    def _send(self, start, *, cut=None, etag="", stall=False, lie=0):
        rest = BODY[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(rest) + lie))
        if etag:
            self.send_header("ETag", etag)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
        self.end_headers()
        self.wfile.write(rest if cut is None else rest[:cut])
        self.wfile.flush()
        if stall:
            time.sleep(1)
        if cut is not None or lie:
            self.close_connection = True

    def _answer(self, status, body, headers=()):
        self.send_response(status)
        for key, value in {**dict(headers), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Says nothing between the tests' dots."""


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Site) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def site(server, monkeypatch, tmp_path):
    for name in ("HTTP_PROXY", "http_proxy", "JAXFT_MIRROR", "JAXFT_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("JAXFT_CACHE", str(tmp_path / "cache"))
    server.asked, server.times = [], {}
    return f"http://127.0.0.1:{server.server_port}"


def names(folder):
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


@pytest.mark.parametrize(
    ("way", "requests"),
    [
        ("whole", 1),
        ("moved", 2),
        ("busy", 3),
        ("short", 3),
        ("short_unnamed", 3),
        ("stall", 2),
        ("changed", 2),
        ("ignores_range", 2),
        ("other_part", 3),
        ("already_whole", 2),
    ],
)
def test_a_file_comes_whole_in_the_end(way, requests, site, server, tmp_path):
    download(f"{site}/{way}", tmp_path / "net.pth", patience=QUICK)
    assert (tmp_path / "net.pth").read_bytes() == BODY
    assert len(server.asked) == requests
    assert names(tmp_path) == {"net.pth"}


def test_a_download_goes_on_where_it_was_cut_and_only_where_the_server_names_its_version(site, server, tmp_path):
    download(f"{site}/short", tmp_path / "named", patience=QUICK)
    assert [asked for _, asked in server.asked] == [None, f"bytes={HALF // 2}-", f"bytes={HALF}-"]
    server.asked.clear()
    download(f"{site}/short_unnamed", tmp_path / "unnamed", patience=QUICK)
    assert [asked for _, asked in server.asked] == [None, None, None]


def test_what_arrived_is_kept_for_another_process(site, server, tmp_path):
    with pytest.raises(JaxftError, match=rf"cut short after {HALF:,} of {len(BODY):,} bytes \({HALF:,} bytes of it are kept"):
        download(f"{site}/always_short", tmp_path / "net.pth", patience=QUICK)
    assert names(tmp_path) == {"net.pth.part", "net.pth.part.json"}
    server.asked.clear()
    download(f"{site}/whole", tmp_path / "net.pth", patience=QUICK)
    assert server.asked == [("/whole", f"bytes={HALF}-")]
    assert (tmp_path / "net.pth").read_bytes() == BODY


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("401", "answers 401 .*it wants a login; download it by hand and give the file's path"),
        ("403", "answers 403 Forbidden: it wants a login, a licence to be accepted, or another way out"),
        ("404", "answers 404 Not Found: the file was moved"),
        ("418", "answers 418"),
        ("unencrypted", "leads to http://weights.example/net.pth, which is not encrypted"),
    ],
)
def test_a_refusal_is_said_at_once(way, message, site, server, tmp_path):
    with pytest.raises(JaxftError, match=message):
        download(f"{site}/{way}", tmp_path / "net.pth", patience=QUICK)
    assert len(server.asked) == 1
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("way", "message", "requests"),
    [("always_busy", "the server answers 503", 3), ("lies_long", f"cut short after {len(BODY):,} of {len(BODY) + 100:,}", 4)],
)
def test_after_some_tries_without_a_byte_it_is_given_up(way, message, requests, site, server, tmp_path):
    with pytest.raises(JaxftError, match=message):
        download(f"{site}/{way}", tmp_path / "net.pth", patience=QUICK)
    assert len(server.asked) <= requests
    assert not (tmp_path / "net.pth").exists()


def test_a_length_that_is_too_short_is_found_by_the_hash(site):
    with pytest.raises(JaxftError, match=f"expected {SHA256}: not kept"):
        fetch(f"{site}/lies_short", sha256=SHA256)


def test_a_server_that_is_not_there_is_said_with_advice(site, tmp_path):
    with pytest.raises(JaxftError, match=r"the server cannot be reached; download it by hand"):
        download("http://127.0.0.1:9/net.pth", tmp_path / "net.pth", patience=QUICK)


def test_many_at_once_download_a_file_once(site, server, tmp_path):
    threads = [
        threading.Thread(target=download, args=(f"{site}/stall", tmp_path / "net.pth"), kwargs={"patience": QUICK})
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "net.pth").read_bytes() == BODY
    assert len(server.asked) == 2  # one stalled, and went on


def test_processes_share_the_cache(site, server, tmp_path):
    code = f"from jaxft.weights import fetch; print(fetch('{site}/whole', sha256='{SHA256}'))"
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    found = {run.communicate(timeout=60)[0] for run in runs}
    assert len(found) == 1
    assert [run.returncode for run in runs] == [0, 0]
    assert len(server.asked) == 1


def test_a_process_that_waits_too_long_for_another_says_so(site, tmp_path):
    with (
        filelock.FileLock(tmp_path / "net.pth.lock"),
        pytest.raises(JaxftError, match="another process has been downloading .* for too long"),
    ):
        download(f"{site}/whole", tmp_path / "net.pth", patience=Patience(lock=0.1))


def test_the_environments_proxy_is_used(site, server, monkeypatch, tmp_path):
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("HTTP_PROXY", site)
    download("http://localhost/weights/whole", tmp_path / "net.pth", patience=QUICK)
    assert [path for path, _ in server.asked] == ["http://localhost/weights/whole"]


def test_a_mirror_takes_the_place_of_the_host(site, server, monkeypatch):
    monkeypatch.setenv("JAXFT_MIRROR", f"{site}/mirror/")
    path = fetch("https://weights.example/models/whole", sha256=SHA256)
    assert [path for path, _ in server.asked] == ["/mirror/weights.example/models/whole"]
    monkeypatch.delenv("JAXFT_MIRROR")
    assert fetch("https://weights.example/models/whole", sha256=SHA256) == path  # known by its own address


def test_a_bar_is_shown_where_asked(site, tmp_path, capsys):
    download(f"{site}/whole", tmp_path / "a", progress=True)
    assert "whole" in capsys.readouterr().err
    download(f"{site}/whole", tmp_path / "b")
    assert capsys.readouterr().err == ""


class _Hub(http.server.BaseHTTPRequestHandler):
    """As much of the Hugging Face hub as a download asks for."""

    def do_HEAD(self):
        self._send(b"")

    def do_GET(self):
        self._send(BODY)

    def _send(self, body):
        self.server.asked.append((self.command, self.path))
        if "/gated/" in self.path:
            self.send_response(403)
            self.send_header("X-Error-Code", "GatedRepo")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        for key, value in {"X-Repo-Commit": "a" * 40, "ETag": f'"{SHA256}"', "Content-Length": str(len(BODY))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Says nothing between the tests' dots."""


def test_the_hub_is_asked_where_hf_endpoint_says_and_its_first_hash_is_kept(tmp_path):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as hub:
        hub.asked = []
        thread = threading.Thread(target=hub.serve_forever, args=(0.05,))
        thread.start()
        code = (
            "import json; from jaxft.weights import fetch; from jaxft.errors import JaxftError\n"
            "path = fetch('hf:owner/net/model.safetensors', pin=True)\n"
            "try:\n    fetch('hf:gated/net/model.safetensors')\nexcept JaxftError as error:\n    refused = str(error)\n"
            "print(json.dumps([str(path), refused]))"
        )
        environment = {
            **os.environ,
            "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
            "HF_HOME": str(tmp_path / "hf"),
            "JAXFT_CACHE": str(tmp_path / "cache"),
            "NO_PROXY": "127.0.0.1",
        }
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=120
        )
        hub.shutdown()
        thread.join()
    assert done.returncode == 0, done.stderr
    path, refused = json.loads(done.stdout.splitlines()[-1])
    with open(path, "rb") as file:
        assert file.read() == BODY
    (note,) = (tmp_path / "cache" / "pins").iterdir()
    assert json.loads(note.read_text()) == {"source": "hf:owner/net/model.safetensors", "sha256": SHA256}
    assert "hf:gated/net/model.safetensors" in refused
    assert "403" in refused
