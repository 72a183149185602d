"""A server on the loopback that is one bucket of Google Cloud Storage, as gcsfs, google-cloud-storage and TensorStore see it.

Objects in memory, with generations and their conditions (one is replaced only where it is what the writer believes), ranges,
listing by prefix and delimiter, uploads in one and in pieces, moves and copies. It can be told to fail.
"""

from __future__ import annotations

import base64
import email
import email.policy
import hashlib
import itertools
import json
import re
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

#: What a process needs to find a bucket of this kind beside its address.
VARIABLES = {"GOOGLE_AUTH_TOKEN_FOR_TESTING": "none", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}


class Bucket:
    """The bucket `gs://NAME`, served while the context is open.

    Attributes:
      name: of the bucket.
      objects: name -> (bytes, generation).
      fault: `(method, object name) -> status`, asked before each request; 0 lets it through.
      asked: every request, as (method, object name).
    """

    def __init__(self, name: str) -> None:
        self.name, self.objects = name, {}
        self.fault: Callable[[str, str], int] = lambda method, name: 0
        self.asked: list[tuple[str, str]] = []
        self.lock, self.clock, self.uploads = threading.Lock(), itertools.count(1), {}

    def __enter__(self) -> Bucket:
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"bucket": self}))
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables with which a program takes this server for Google's."""
        url = f"http://127.0.0.1:{self._server.server_port}"
        return {**VARIABLES, "STORAGE_EMULATOR_HOST": url, "TENSORSTORE_GCS_HTTP_URL": url}

    def reset(self) -> None:
        """Empties the bucket; it fails no more."""
        self.objects.clear()
        self.asked.clear()
        self.fault = lambda method, name: 0

    def names(self, prefix: str = "") -> list[str]:
        """Names of objects, sorted, without their prefix."""
        return sorted(name[len(prefix) :] for name in list(self.objects) if name.startswith(prefix))

    def read(self, name: str) -> bytes:
        return self.objects[name][0]

    def write(self, name: str, content: bytes) -> None:
        self.objects[name] = (content, next(self.clock))

    def describe(self, name: str) -> dict[str, str]:
        content, generation = self.objects[name]
        return {
            "kind": "storage#object", "bucket": self.name, "name": name, "size": str(len(content)), "metageneration": "1",
            "generation": str(generation), "etag": str(generation), "md5Hash": _md5(content), "storageClass": "STANDARD",
            "timeCreated": "2026-01-01T00:00:00.000Z", "updated": "2026-01-01T00:00:00.000Z",
        }  # fmt: skip


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # whoever asked may be gone
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    bucket: Bucket
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        """Nothing is printed."""

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_DELETE = do_PATCH = do_GET

    def _serve(self) -> None:
        self.body = self._body()
        split = urlsplit(self.path)
        self.query = {key: values[0] for key, values in parse_qs(split.query).items()}
        place = re.sub(r"^/(upload/|download/)?(storage/v1/)?", "", split.path)
        bucket, _, rest = place.removeprefix("b/").partition("/o")
        name, rest = unquote(rest.removeprefix("/").split("/")[0]), rest.removeprefix("/").split("/")[1:]
        name = name or self.query.get("name", "")
        kept = self.bucket
        kept.asked.append((self.command, name or self.query.get("prefix", "")))
        if status := kept.fault(self.command, name or self.query.get("prefix", "")):
            self._answer(status, {"error": {"code": status, "message": "as told"}})
        elif bucket != kept.name:
            self._answer(404, {"error": {"code": 404, "message": f"no bucket {bucket}"}})
        else:
            with kept.lock:
                self._act(name, rest, "/o" in place, upload=split.path.startswith("/upload/"))

    def _act(self, name: str, rest: list[str], objects: bool, *, upload: bool) -> None:
        kept = self.bucket
        if not objects:
            self._answer(200, {"kind": "storage#bucket", "name": kept.name, "id": kept.name, "location": "US"})
        elif upload:
            self._upload(name)
        elif not name:
            self._list()
        elif name not in kept.objects:
            self._answer(404, {"error": {"code": 404, "message": f"No such object: {kept.name}/{name}"}})
        elif rest and rest[0] in ("rewriteTo", "copyTo", "moveTo"):
            target = unquote(rest[-1])
            kept.write(target, kept.read(name))
            if rest[0] == "moveTo":
                del kept.objects[name]
            whole = kept.describe(target)
            self._answer(200, whole if rest[0] == "moveTo" else {"done": True, "resource": whole})
        elif self.command == "DELETE":
            if self._allowed(name):
                del kept.objects[name]
                self._answer(204, None)
        elif self.query.get("alt") == "media":
            self._media(name)
        else:
            self._answer(200, kept.describe(name))

    def _list(self) -> None:
        kept, query = self.bucket, self.query
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        items, prefixes = [], []
        for name in kept.names():
            later = name[len(prefix) :]
            if not name.startswith(prefix) or name < query.get("startOffset", ""):
                continue
            if query.get("endOffset") and name >= query["endOffset"]:
                continue
            if delimiter and delimiter in later:
                prefixes.append(prefix + later[: later.index(delimiter) + 1])
            else:
                items.append(kept.describe(name))
        self._answer(200, {"kind": "storage#objects", "items": items, "prefixes": sorted(set(prefixes))})

    def _media(self, name: str) -> None:
        content, generation = self.bucket.objects[name]
        if self.query.get("ifGenerationNotMatch") == str(generation):
            self._answer(304, None)
        elif self._allowed(name):
            wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
            headers = {"x-goog-generation": str(generation), "Content-Type": "application/octet-stream"}
            if not wanted:
                return self._answer(200, content, headers)
            first, last = wanted.groups()
            start = int(first) if first else max(len(content) - int(last), 0)
            stop = min(int(last) + 1, len(content)) if first and last else len(content)
            if start >= len(content):
                return self._answer(416, None)
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            self._answer(206, content[start:stop], headers)

    def _upload(self, name: str) -> None:
        kept, kind = self.bucket, self.query.get("uploadType")
        session = self.query.get("upload_id", "")
        if kind == "media":
            content = self.body
        elif kind == "multipart":
            message = email.message_from_bytes(
                f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode() + self.body, policy=email.policy.HTTP
            )
            about, data = message.iter_parts()
            name, content = json.loads(about.get_payload(decode=True))["name"], data.get_payload(decode=True)
        elif not session:
            name = name or json.loads(self.body or b"{}")["name"]
            number = str(next(kept.clock))
            kept.uploads[number] = (name, b"")
            place = f"{kept.variables['STORAGE_EMULATOR_HOST']}/upload/storage/v1/b/{kept.name}/o"
            return self._answer(200, {}, {"Location": f"{place}?uploadType=resumable&upload_id={number}"})
        else:
            name, before = kept.uploads[session]
            content = before + self.body
            if self.headers.get("Content-Range", "").endswith("/*"):
                kept.uploads[session] = (name, content)
                return self._answer(308, None, {"Range": f"bytes=0-{len(content) - 1}"})
            del kept.uploads[session]
        if self._allowed(name):
            kept.write(name, content)
            self._answer(200, kept.describe(name))

    def _allowed(self, name: str) -> bool:
        """Whether the object is what the request believes it to be; 0 stands for none."""
        wanted = self.query.get("ifGenerationMatch")
        if wanted is None or int(wanted) == self.bucket.objects.get(name, (b"", 0))[1]:
            return True
        self._answer(412, {"error": {"code": 412, "message": "conditionNotMet"}})
        return False

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status: int, content: bytes | dict | None, headers: dict[str, str] | None = None) -> None:
        body = b"" if content is None else content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", **(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)


def _md5(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content).digest()).decode()
