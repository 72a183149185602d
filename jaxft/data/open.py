"""Opens a data set by a line of text, and splits, checks and fingerprints it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxft.data.check import drop_bad
from jaxft.data.decode import decode
from jaxft.data.folder import read_csv, read_folder
from jaxft.data.sources import Arrays, Files, Source, Splits, fingerprint
from jaxft.data.splits import duplicates_across, read_manifest, stratified
from jaxft.errors import JaxftError, near

TASKS = ("classify", "multilabel", "regression")


def open_data(
    source: str | Path | tuple[Any, Any] | Mapping[str, tuple[Any, Any]],
    *,
    task: str = "classify",
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    split_seed: int = 0,
    max_bad_fraction: float = 0.0,
    manifest: Path | None = None,
    data_dir: str | None = None,
    class_names: Sequence[str] | None = None,
) -> Splits:
    """Opens a data set.

    Args:
      source: `folder:PATH` or an existing folder (`train/ val/ test/` of class folders, or class folders); `csv:FILE`;
        `tfds:NAME`; or arrays: (images, labels), or {"train": (images, labels), "val": ..., "test": ...}.
      task: "classify", "multilabel" or "regression".
      val_fraction, test_fraction: what is split off, stratified, where the data come in one piece; of data with a training and
        a test split, `val_fraction` of the training data validates.
      split_seed: of that split.
      max_bad_fraction: share of unreadable pictures that may be left out.
      manifest: a split of ours written down before (see `write_manifest`), to be made again; None splits anew.
      data_dir: folder of tensorflow-datasets.
      class_names: of arrays; None numbers them.

    Raises:
      JaxftError: whatever does not fit, with what to do.
    """
    if task not in TASKS:
        raise JaxftError(f"no task is called '{task}'{near(task, TASKS)}; there are {', '.join(TASKS)}")
    found: dict[str, Any]
    if isinstance(source, str | Path):
        found, names = _by_text(str(source), task, data_dir)
    else:
        pieces = dict(source) if isinstance(source, Mapping) else {"all": source}
        found, names = _by_arrays(pieces, task, class_names)
    notes: list[str] = []
    for split in list(found):
        if isinstance(found[split], Files):
            found[split], more = drop_bad(found[split], split, max_bad_fraction)
            notes += more
    settings = {"val_fraction": val_fraction, "test_fraction": test_fraction, "split_seed": split_seed}
    splits, ours = _split(found, settings, manifest)
    if ours:
        notes.append("split by us: " + ", ".join(f"{len(part)} {split}" for split, part in ours.items()))
    files = {split: part for split, part in splits.items() if isinstance(part, Files)}
    if len(files) > 1:
        notes += duplicates_across(files)
    if splits.get("test") is None:
        notes.append("there is no test split: the final figures are on the validation split, which selection has seen")
    ordered = {split: splits.get(split) for split in ("train", "val", "test")}
    return Splits(
        train=splits["train"],
        val=splits.get("val"),
        test=splits.get("test"),
        class_names=names,
        fingerprint=fingerprint(ordered, names),
        notes=tuple(notes),
        ours=ours,
        settings=settings,
    )


def _by_text(source: str, task: str, data_dir: str | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    kind, colon, rest = source.partition(":")
    if kind == "folder" and colon:
        return _only_classes(read_folder(Path(rest).expanduser()), task)
    if kind == "csv" and colon:
        return read_csv(Path(rest).expanduser(), task)
    if kind == "tfds" and colon:
        if task != "classify":
            raise JaxftError(f"tfds: sources are for the task 'classify', not '{task}'")
        from jaxft.data.tfds import read_tfds  # tensorflow-datasets takes seconds to import

        return read_tfds(rest, data_dir=data_dir)
    if not source:
        raise JaxftError("no data: set config.data.source to folder:PATH, csv:FILE or tfds:NAME")
    if Path(source).expanduser().is_dir():
        return _only_classes(read_folder(Path(source).expanduser()), task)
    raise JaxftError(f"no folder '{source}' (other data are written csv:FILE or tfds:NAME)")


def _only_classes(found: tuple[dict[str, Files], tuple[str, ...]], task: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    if task != "classify":
        raise JaxftError(f"folders give one class a picture: the task '{task}' needs a table, csv:FILE")
    return dict(found[0]), found[1]


def _by_arrays(
    pieces: Mapping[str, tuple[Any, Any]], task: str, class_names: Sequence[str] | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    found: dict[str, Any] = {}
    for split, (images, labels) in pieces.items():
        if split not in ("train", "val", "test", "all"):
            raise JaxftError(f"'{split}' is no split: arrays come as train, val and test")
        given = np.asarray(labels)
        if given.dtype.kind not in "biuf":
            raise JaxftError(f"{split}: labels must be numbers, not {given.dtype}")
        if task == "classify" and (given % 1 != 0).any():
            raise JaxftError(f"{split}: labels of the task 'classify' must be whole numbers")
        labels = given.astype(np.int32 if task == "classify" else np.float32)
        if len(images) != len(labels) or not len(labels):
            raise JaxftError(f"{split}: {len(images)} images and {len(labels)} labels; there must be as many, and some")
        if labels.ndim != (2 if task == "multilabel" else 1):
            raise JaxftError(f"{split}: labels of the task '{task}' cannot have the shape {list(labels.shape)}")
        decode(np.asarray(images[0]), np.asarray(images[0]).shape[-1] if np.ndim(images[0]) == 3 else 1)
        found[split] = Arrays(images, labels, [f"{split}/{number}" for number in range(len(labels))])
    if task == "regression":
        return found, ("value",)
    count = int(max(part.labels.max() for part in found.values())) + 1 if task == "classify" else labels.shape[1]
    if task == "classify" and (min(part.labels.min() for part in found.values()) < 0 or count < 2):
        raise JaxftError("labels must be class numbers from 0, of two classes at least")
    names = tuple(class_names) if class_names is not None else tuple(str(number) for number in range(count))
    if len(names) < count:
        raise JaxftError(f"{len(names)} class names for labels up to {count - 1}")
    return found, names


def _split(
    found: dict[str, Any], settings: Mapping[str, Any], manifest: Path | None
) -> tuple[dict[str, Source], dict[str, Source]]:
    """Splits off what is missing. Returns all splits, and those made by us."""
    whole = found.get("all", found.get("train"))
    if whole is None or ("train" not in found and len(found) > 1):
        raise JaxftError("the data have no training split")
    if "val" in found:
        return dict(found), {}
    if manifest is not None:
        chosen = read_manifest(manifest, whole, settings)
    else:
        rest = np.arange(len(whole))
        chosen = {}
        if "all" in found and settings["test_fraction"]:
            rest, chosen["test"] = stratified(whole.labels, settings["test_fraction"], settings["split_seed"])
        if settings["val_fraction"]:
            # Of the whole, also where a test split was taken off before.
            share = settings["val_fraction"] * len(whole) / len(rest)
            keep, part = stratified(whole.labels[rest], share, settings["split_seed"])
            rest, chosen["val"] = rest[keep], rest[part]
        chosen["train"] = rest
    ours: dict[str, Source] = {split: whole.subset(chosen[split]) for split in ("train", "val", "test") if split in chosen}
    return {**{split: part for split, part in found.items() if split != "all"}, **ours}, ours
