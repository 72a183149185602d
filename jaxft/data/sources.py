"""What an example is before it is decoded: picture and label, by number."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeGuard

import numpy as np

from jaxft.decoding.decode import BadImage, decode
from jaxft.errors import JaxftError

EXTENSIONS = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".avif", ".tif", ".tiff", ".ppm", ".pgm"))


def find_pictures(folder: Path) -> list[Path]:
    """All pictures below a folder by name, but for what editors and systems hide: `.ipynb_checkpoints/`, `._photo.jpg`."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in EXTENSIONS
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


class Source(Protocol):
    """Examples by number: `source[i]` is (picture, label); the picture is bytes, a path or uint8 pixels.

    `labels` is [N] int32 (classes), [N, K] f32 (multi-label, soft labels) or [N] f32 (regression); `names` tells examples
    apart; `groups`, where there are any, says which belong together (a patient, a burst): "" is a group of its own.
    """

    @property
    def labels(self) -> np.ndarray: ...
    @property
    def names(self) -> Sequence[str]: ...
    @property
    def groups(self) -> Sequence[str] | None: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> tuple[bytes | Path | np.ndarray, Any]: ...
    def subset(self, chosen: Sequence[int] | np.ndarray) -> Source: ...


def _some(values: Sequence[str] | None, chosen: Sequence[int] | np.ndarray) -> list[str] | None:
    return None if values is None else [values[index] for index in chosen]


def digest_of(picture: bytes | Path) -> str:
    """The sha256 of an encoded picture's bytes.

    Raises:
      JaxftError: a file that cannot be read.
    """
    try:
        content = picture if isinstance(picture, bytes) else picture.read_bytes()
    except OSError as error:
        raise JaxftError(f"cannot read {picture!r}: {error.strerror}") from error
    return hashlib.sha256(content).hexdigest()


@dataclasses.dataclass(frozen=True, eq=False)
class Files:
    """Picture files below a folder. `empty` are folders of classes that hold none."""

    root: Path
    names: Sequence[str]
    labels: np.ndarray
    groups: Sequence[str] | None = None
    empty: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Path, Any]:
        return self.root / self.names[index], self.labels[index]

    @functools.cached_property
    def digests(self) -> list[str]:
        """The sha256 of each file's bytes."""
        return [digest_of(self.root / name) for name in self.names]

    def subset(self, chosen: Sequence[int] | np.ndarray) -> Files:
        chosen = np.asarray(chosen, int)
        return Files(self.root, _some(self.names, chosen) or [], self.labels[chosen], _some(self.groups, chosen))


@dataclasses.dataclass(frozen=True, eq=False)
class Stored:
    """Pictures that a function reads by position: out of shards, or of an object of the user's.

    Attributes:
      read: position -> an encoded picture (bytes, a path), or pixels. Called from many threads.
      positions: [N], of the examples.
      labels, names, groups: see `Source`.
      encoded: whether `read` gives encoded pictures.
      written: the sha256 of each picture, where they were written down when all pictures had been decoded.
      note: what a user should know of how they are read.
    """

    read: Callable[[int], bytes | Path | np.ndarray]
    positions: np.ndarray
    names: Sequence[str]
    labels: np.ndarray
    groups: Sequence[str] | None = None
    encoded: bool = True
    written: Sequence[str] | None = None
    note: str = ""

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[bytes | Path | np.ndarray, Any]:
        return self.read(int(self.positions[index])), self.labels[index]

    @functools.cached_property
    def digests(self) -> Sequence[str]:
        """The sha256 of each encoded picture's bytes."""
        if self.written is not None:
            return self.written
        return [digest_of(self[index][0]) for index in range(len(self))]  # type: ignore[arg-type]

    def subset(self, chosen: Sequence[int] | np.ndarray) -> Stored:
        chosen = np.asarray(chosen, int)
        return dataclasses.replace(
            self,
            positions=self.positions[chosen],
            names=_some(self.names, chosen) or [],
            labels=self.labels[chosen],
            groups=_some(self.groups, chosen),
            written=_some(self.written, chosen),
        )


def is_encoded(source: Source) -> TypeGuard[Files | Stored]:
    """Whether a source's pictures are files, or bytes of files: they have digests, and may be damaged."""
    return isinstance(source, Files) or (isinstance(source, Stored) and source.encoded)


def was_checked(source: Source) -> bool:
    """Whether every picture was decoded before, and its digest written down."""
    return isinstance(source, Stored) and source.written is not None


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """Pictures in memory: uint8 [N, H, W] or [N, H, W, C], or a sequence of such pictures."""

    images: Any
    labels: np.ndarray
    names: Sequence[str]
    groups: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Any]:
        return np.asarray(self.images[index]), self.labels[index]

    def subset(self, chosen: Sequence[int] | np.ndarray) -> Arrays:
        chosen = np.asarray(chosen, int)
        images = self.images[chosen] if isinstance(self.images, np.ndarray) else [self.images[i] for i in chosen]
        return Arrays(images, self.labels[chosen], [self.names[i] for i in chosen], _some(self.groups, chosen))


#: What a data set holds before we split it, by split ("all" where it comes in one piece), and the names of its classes.
Found = tuple[dict[str, Source], tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class Splits:
    """A data set.

    Attributes:
      train: the training examples.
      val, test: None where there are none.
      class_names: in the order of the labels; of a regression, the name of the value.
      fingerprint: sha256 over names and labels of all splits, and over the bytes of encoded pictures: the same data have the
        same one on any machine, whether they lie in files, in a table or in shards.
      notes: what a user should know, a line each.
      unlabelled: pictures to learn from whose labels are not looked at; None where none were asked for.
      ours: the splits made by us, empty where the data came split, and `settings`, what they were made with.
    """

    train: Source
    val: Source | None
    test: Source | None
    class_names: tuple[str, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()
    ours: Mapping[str, Source] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    unlabelled: Source | None = None


def fingerprint(splits: dict[str, Source | None], class_names: Sequence[str]) -> str:
    """See `Splits.fingerprint`."""
    digest = hashlib.sha256("\0".join(class_names).encode())
    for split, source in splits.items():
        if source is not None:
            digest.update(f"\0\0{split}\0{len(source)}".encode())
            digest.update("\0".join(source.names).encode())
            digest.update(np.ascontiguousarray(source.labels).tobytes())
            if is_encoded(source):
                digest.update("\0".join(source.digests).encode())
    return digest.hexdigest()


def predict_source(paths: Sequence[str | Path], *, channels: int = 3) -> tuple[Files, list[tuple[str, str]]]:
    """Pictures to classify: files, and all pictures below folders, in the order given and by name within a folder.

    Returns:
      The readable ones, and (name, reason) of the others.

    Raises:
      JaxftError: a path that does not exist, a folder without pictures.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = find_pictures(path)
            if not inside:
                raise JaxftError(f"the folder {path} holds no pictures ({', '.join(sorted(EXTENSIONS))})")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise JaxftError(f"no picture or folder '{path}'")
    good: list[str] = []
    bad: list[tuple[str, str]] = []
    for path in found:
        try:
            decode(path, channels)
            good.append(str(path))
        except BadImage as error:
            bad.append((str(path), str(error)))
    return Files(Path(), good, np.zeros(len(good), np.int32)), bad
