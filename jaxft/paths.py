"""Paths of files on this computer and of objects in a bucket of Google Cloud Storage, `gs://BUCKET/FOLDER`.

`open_path` alone decides which of the two a text names. What it returns acts like a `pathlib.Path` either way: in a bucket it
is one of `etils.epath`, which Orbax uses too. There are no folders in a bucket, only names with `/` in them, and an object
appears whole when its upload ends.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from jaxft.errors import JaxftError

#: The errno of everything that goes wrong between here and a bucket, but for an object that is not there.
UNREACHABLE = errno.EREMOTE
_SCHEME = "gs://"
os.environ.setdefault("EPATH_USE_TF", "false")  # one way to a bucket, whether TensorFlow is there or not; etils asks only once


def open_path(path: str | os.PathLike[str]) -> Path:
    """The path that a text names.

    Raises:
      JaxftError: a place that nothing can be written to, or a package is missing.
    """
    text = os.fspath(path)
    if "://" not in text:
        return Path(text)
    if not text.startswith(_SCHEME) or not text.removeprefix(_SCHEME).strip("/"):
        raise JaxftError(f"'{text}' is no folder and no gs://BUCKET/FOLDER: mount another kind of storage as a folder")
    if importlib.util.find_spec("gcsfs") is None:
        raise JaxftError(f"'{text}' needs the package gcsfs: pip install 'jaxft[gcs]'")
    return cast(Path, _bucket_path(text))


def is_remote(path: Path) -> bool:
    """Whether a path of `open_path` lies in a bucket."""
    return str(path).startswith(_SCHEME)


def _bucket_path(text: str) -> Any:
    import fsspec.config
    from etils import epath

    # What TensorStore and other processes write is not in a list that gcsfs keeps.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it prints a traceback for what it raises too
    return epath.Path(text)


@contextlib.contextmanager
def reaching(path: Path) -> Iterator[None]:
    """Gives whatever goes wrong inside with a path in a bucket as an OSError with a line for its text.

    What libraries raise there is of many kinds. On this computer nothing is changed.

    Raises:
      FileNotFoundError: there is no such object (or bucket).
      OSError: with the errno UNREACHABLE.
    """
    try:
        yield
    except Exception as error:
        if not is_remote(path) or isinstance(error, JaxftError) or (isinstance(error, OSError) and error.strerror):
            raise
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError(errno.ENOENT, f"there is no {error}") from error
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise OSError(UNREACHABLE, f"the bucket says: {reason}") from error


def make_folder(path: Path) -> None:
    """Makes a folder and those above it; in a bucket, where gcsfs would make a bucket, nothing."""
    if not is_remote(path):
        path.mkdir(parents=True, exist_ok=True)


def remove_folder(path: Path) -> None:
    """Removes a folder with all in it, as far as that can be done."""
    if not is_remote(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError), reaching(path):
        cast(Any, path).rmtree()


def list_files(folder: Path) -> list[str]:
    """Names of all files in a folder and the folders in it, sorted, relative to it."""
    if not is_remote(folder):
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    import fsspec.core

    with reaching(folder):  # in one request for a thousand
        system, root = fsspec.core.url_to_fs(str(folder))
        return sorted(name.removeprefix(f"{root}/") for name in system.find(root))
