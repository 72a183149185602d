"""Downloads a file over HTTP: whole, once for all processes, going on where an earlier try ended."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import filelock
import requests
from tqdm import tqdm

from jaxft.errors import JaxftError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
#: Worth another try: time-outs, too many requests, and what is wrong with the server.
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_PIECE = 1 << 16  # bytes; a piece that is cut short is lost
_ADVICE = {
    401: "it wants a login",
    403: "it wants a login, a licence to be accepted, or another way out of this network",
    404: "the file was moved or its name is wrong",
    410: "the file was taken away",
}
_BY_HAND = "download it by hand and give the file's path"


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long a download is tried.

    Attributes:
      connect, read: seconds to connect, and between two pieces of an answer.
      tries: in a row without a byte gained.
      pause: seconds before the second try; each later one waits twice as long, up to a minute, or as long as the server asks.
      lock: seconds to wait for another process that downloads the same file.
    """

    connect: float = 10
    read: float = 60
    tries: int = 5
    pause: float = 1
    lock: float = 3600


class _Interrupted(Exception):
    """A try that ended early; the next one may go on."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def download(url: str, path: Path, *, patience: Patience | None = None, progress: bool | None = None) -> None:
    """Downloads `url` to `path`, which is there whole or not at all.

    What arrived stays beside it, as `.part`, until it is whole: another try, or another process, goes on from there, if the
    server still has the same file. Proxies are those of the environment (`HTTPS_PROXY`, `NO_PROXY`).

    Args:
      url: https, or http of this machine.
      path: in a folder that is there. If it is there when the lock is taken, another process was faster.
      patience: None is `Patience()`.
      progress: whether a bar is shown; None: on a terminal.

    Raises:
      JaxftError: the server refuses, or gives too little for too long.
      OSError: the disk.
    """
    patience = patience or Patience()
    _check_encrypted(url, url)
    lock = filelock.FileLock(f"{path}.lock")
    try:
        with lock.acquire(timeout=patience.lock):
            if not path.is_file():
                _download(url, path, patience, sys.stderr.isatty() if progress is None else progress)
    except filelock.Timeout as error:
        raise JaxftError(f"another process has been downloading {url} for too long (it holds {lock.lock_file})") from error


def _download(url: str, path: Path, patience: Patience, progress: bool) -> None:
    part, note = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.json")
    failures, last = 0, ""
    while failures < patience.tries:
        before = part.stat().st_size if part.is_file() else 0
        try:
            _go_on(url, part, note, patience, progress)
            break
        except _Interrupted as error:
            last = str(error)
            gained = (part.stat().st_size if part.is_file() else 0) - before
            failures = 1 if gained > 0 else failures + 1
            if failures < patience.tries:
                usual = min(60, patience.pause * 2 ** (failures - 1)) * random.uniform(0.5, 1)
                time.sleep(usual if error.wait is None else min(error.wait, 60))
    else:
        kept = f" ({part.stat().st_size:,} bytes of it are kept: another try goes on there)" if part.is_file() else ""
        raise JaxftError(f"cannot download {url}: {last}{kept}; {_BY_HAND}")
    os.replace(part, path)
    note.unlink(missing_ok=True)


def _go_on(url: str, part: Path, note: Path, patience: Patience, progress: bool) -> None:
    """One request, for what is missing."""
    have, version = (part.stat().st_size, _version(note)) if part.is_file() else (0, "")
    expected: int | None = None
    headers = {"Accept-Encoding": "identity"}  # else lengths are those of compressed bytes
    if have and version:
        headers |= {"Range": f"bytes={have}-", "If-Range": version}
    try:
        timeout, hooks = (patience.connect, patience.read), {"response": _check_redirect}
        with requests.get(url, stream=True, timeout=timeout, headers=headers, hooks=hooks) as answer:
            if answer.status_code == 416 and _total(answer) == have:
                return  # it was whole already
            if answer.status_code in (*_PASSING, 416):
                if answer.status_code == 416:
                    part.unlink()
                raise _Interrupted(f"the server answers {answer.status_code} {answer.reason}", _retry_after(answer))
            if not answer.ok:
                advice = _ADVICE.get(answer.status_code, "it will not answer otherwise soon")
                raise JaxftError(f"{url} answers {answer.status_code} {answer.reason}: {advice}; {_BY_HAND}")
            resumed = answer.status_code == 206 and _start(answer) == have
            if answer.status_code == 206 and not resumed:
                part.unlink()
                raise _Interrupted("the server gives another part of the file than was asked for")
            note.write_text(json.dumps({"url": url, "version": _etag(answer)}))
            have = have if resumed else 0
            expected = _length(answer, have)
            with part.open("ab" if resumed else "wb") as file, _bar(url, expected, have, progress) as bar:
                for piece in answer.iter_content(_PIECE):
                    file.write(piece)
                    have += len(piece)
                    bar.update(len(piece))
    except requests.exceptions.ChunkedEncodingError as error:
        raise _Interrupted(_cut_short(have, expected)) from error
    except requests.RequestException as error:
        raise _Interrupted(_plain(error)) from error
    if expected is not None and have < expected:
        raise _Interrupted(_cut_short(have, expected))


def _cut_short(have: int, expected: int | None) -> str:
    return f"the answer was cut short after {have:,}{'' if expected is None else f' of {expected:,}'} bytes"


def _check_redirect(answer: requests.Response, **_: Any) -> None:
    """Before it is followed."""
    if answer.is_redirect:
        _check_encrypted(urljoin(answer.url, answer.headers["Location"]), answer.url)


def _check_encrypted(address: str, url: str) -> None:
    parts = urlsplit(address)
    if parts.scheme != "https" and parts.hostname not in LOOPBACK:
        led = "" if address == url else f" leads to {address}, which"
        raise JaxftError(f"{url}{led} is not encrypted: give its https address, or {_BY_HAND}")


def _version(note: Path) -> str:
    """What the server called the file of which a part is there; "" where it is not known, and nothing can go on."""
    try:
        found = json.loads(note.read_text())["version"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return found if isinstance(found, str) else ""


def _etag(answer: requests.Response) -> str:
    """A strong validator (RFC 9110, 13.1.5): a weak ETag does not promise the same bytes."""
    etag = answer.headers.get("ETag", "")
    return etag if etag.startswith('"') else answer.headers.get("Last-Modified", "")


def _length(answer: requests.Response, have: int) -> int | None:
    """Bytes of the whole file."""
    length = answer.headers.get("Content-Length", "")
    return have + int(length) if length.isdigit() and "Content-Encoding" not in answer.headers else None


def _start(answer: requests.Response) -> int | None:
    first = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(first) if first.isdigit() else None


def _total(answer: requests.Response) -> int | None:
    total = answer.headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isdigit() else None


def _retry_after(answer: requests.Response) -> float | None:
    seconds = answer.headers.get("Retry-After", "")
    return float(seconds) if seconds.isdigit() else None


def _plain(error: requests.RequestException) -> str:
    if isinstance(error, requests.exceptions.ConnectTimeout | requests.exceptions.ReadTimeout):
        return "the server does not answer in time"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy refuses (HTTPS_PROXY, NO_PROXY)"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate cannot be trusted (REQUESTS_CA_BUNDLE names a file of others)"
    if isinstance(error, requests.exceptions.ConnectionError):
        stalled = "timed out" in str(error).lower()
        return "the server stopped answering" if stalled else "the server cannot be reached"
    return type(error).__name__


def _bar(url: str, total: int | None, have: int, progress: bool) -> contextlib.AbstractContextManager[Any]:
    name = Path(urlsplit(url).path).name
    return tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=name[:40], disable=not progress, leave=False)
