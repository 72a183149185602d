"""Data given as Python objects: arrays, and whatever has a length and gives (picture, label) by number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxft.data.sources import Arrays, Source, Stored
from jaxft.data.tables import check_shares
from jaxft.decoding.decode import decode
from jaxft.errors import JaxftError

_SPLITS = ("train", "val", "test", "all")


def read_objects(
    source: Any, task: str, class_names: Sequence[str] | None
) -> tuple[dict[str, Source], tuple[str, ...], list[str]]:
    """Opens (images, labels), an object of examples, or either by split; of the task "unlabelled" pictures alone too.

    Args:
      source: see `open_data`.
      task: see `open_data`.
      class_names: of the labels; None takes those of the first object that has `class_names` or `classes`, or numbers them.

    Returns:
      The splits found, the class names, and notes.

    Raises:
      JaxftError: an object of another kind, another split, labels that do not fit.
    """
    pieces = dict(source) if isinstance(source, Mapping) else {"all": source}
    notes: list[str] = []
    found: dict[str, Source] = {}
    for split, piece in pieces.items():
        if split not in _SPLITS:
            raise JaxftError(f"'{split}' is no split: arrays come as train, val and test")
        if isinstance(piece, tuple) and len(piece) == 2:
            found[split] = _arrays(split, *piece, task)
            continue
        found[split], more = _examples(split, piece, task)
        notes += more
        own = getattr(piece, "class_names", None) or getattr(piece, "classes", None)
        class_names = class_names if class_names is not None else own
    return found, _class_names(found, task, class_names), notes


def _arrays(split: str, images: Any, labels: Any, task: str) -> Arrays:
    bare = task == "unlabelled"
    checked = _check(split, np.zeros(len(images)) if bare else np.asarray(labels), len(images), task)
    first = np.asarray(images[0])
    decode(first, first.shape[-1] if first.ndim == 3 else 1)
    return Arrays(images, checked, [f"{split}/{number}" for number in range(len(checked))])


def _check(split: str, labels: np.ndarray, count: int, task: str) -> np.ndarray:
    """Labels as int32 or f32, in the shape of the task."""
    if labels.dtype.kind not in "biuf":
        raise JaxftError(f"{split}: labels must be numbers, not {labels.dtype}")
    if task == "classify" and (labels % 1 != 0).any():
        raise JaxftError(f"{split}: labels of the task 'classify' must be whole numbers")
    if count != len(labels) or not len(labels):
        raise JaxftError(f"{split}: {count} images and {len(labels)} labels; there must be as many, and some")
    if labels.ndim != (2 if task in ("multilabel", "soft") else 1):
        raise JaxftError(f"{split}: labels of the task '{task}' cannot have the shape {list(labels.shape)}")
    if task == "soft":
        check_shares(labels, lambda row: f"{split}/{row}")
    return labels.astype(np.int32 if task in ("classify", "unlabelled") else np.float32)


def _class_names(found: Mapping[str, Source], task: str, class_names: Sequence[str] | None) -> tuple[str, ...]:
    if task == "unlabelled":
        return ()
    if task == "regression":
        return ("value",)
    if task == "classify":
        count = int(max(part.labels.max() for part in found.values())) + 1
        if min(part.labels.min() for part in found.values()) < 0 or count < 2:
            raise JaxftError("labels must be class numbers from 0, of two classes at least")
    else:
        widths = {part.labels.shape[1] for part in found.values()}
        if len(widths) > 1:
            raise JaxftError(f"the splits have labels of {' and '.join(map(str, sorted(widths)))} classes")
        count = widths.pop()
    names = tuple(map(str, class_names)) if class_names is not None else tuple(str(number) for number in range(count))
    if len(names) < count:
        raise JaxftError(f"{len(names)} class names for labels up to {count - 1}")
    return names


def _examples(split: str, piece: Any, task: str) -> tuple[Stored, list[str]]:
    """An object of examples. Its labels are read by going through it, where it has no `labels`."""
    if isinstance(piece, str | bytes) or not (hasattr(piece, "__len__") and hasattr(piece, "__getitem__")):
        raise JaxftError(
            f"{split}: {type(piece).__name__} is no data: give (images, labels), or an object with __len__ and __getitem__ "
            "that gives (image, label)"
        )
    count = len(piece)
    if not count:
        raise JaxftError(f"{split}: the {type(piece).__name__} has no examples")
    bare = task == "unlabelled"
    first = _picture(piece, 0, split, bare)
    notes = []
    given = np.zeros(count) if bare else getattr(piece, "labels", None)
    if given is None:
        given = [_label(piece, row, split) for row in range(count)]
        notes.append(f"{split}: all {count} examples were read once for their labels: an attribute `labels` spares that")
    try:
        labels = np.asarray(given)
    except ValueError as error:
        raise JaxftError(f"{split}: labels must all be of one shape ({error})") from error
    names = [str(name) for name in getattr(piece, "names", None) or (f"{split}/{row}" for row in range(count))]
    groups = getattr(piece, "groups", None)
    for what, values in (("names", names), ("groups", groups)):
        if values is not None and len(values) != count:
            raise JaxftError(f"{split}: {len(values)} {what} for {count} examples")
    if len(set(names)) < count:
        raise JaxftError(f"{split}: the names of the examples must differ")
    return Stored(
        lambda position: _picture(piece, position, split, bare),
        np.arange(count),
        names,
        _check(split, labels, count, task),
        None if groups is None else [str(group) for group in groups],
        encoded=not isinstance(first, np.ndarray),
    ), notes


def _pair(piece: Any, row: int, split: str, bare: bool = False) -> tuple[Any, Any]:
    """Image and label; the label of a `bare` example is None, and there need not be one."""
    try:
        example = piece[row]
        if bare and not isinstance(example, tuple | Mapping):
            return example, None
        if bare:
            return example["image"] if isinstance(example, Mapping) else example[0], None
        if isinstance(example, Mapping):
            return example["image"], example["label"]
        image, label = example
    except (KeyError, TypeError, ValueError) as error:
        raise JaxftError(
            f"{split}/{row}: an example must be (image, label) or a dict of them, not {type(piece).__name__}[{row}] ({error!r})"
        ) from error
    return image, label


def _label(piece: Any, row: int, split: str) -> Any:
    return np.asarray(_pair(piece, row, split)[1])


def _picture(piece: Any, row: int, split: str, bare: bool) -> bytes | Path | np.ndarray:
    """What `decode` takes."""
    image = _pair(piece, row, split, bare)[0]
    if isinstance(image, str):
        return Path(image)
    if isinstance(image, bytes | Path):
        return image
    if isinstance(image, Image.Image):
        image = image if image.mode in ("L", "RGB") else image.convert("RGB")
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
        raise JaxftError(
            f"{split}/{row}: an image must be bytes, a path or uint8 [H, W] or [H, W, C], not {pixels.dtype} "
            f"{list(pixels.shape)}: leave scaling, normalising and tensors to jaxft"
        )
    return pixels
