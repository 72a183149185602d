"""Opens a data set by a line of text or a Python object, and splits, checks and fingerprints it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxft.data.check import drop_bad
from jaxft.data.few import few_of_each
from jaxft.data.read import read_source
from jaxft.data.replay import among_classes, joined
from jaxft.data.semi_supervised import open_unlabelled
from jaxft.data.sources import EXTENSIONS, Files, Source, Splits, Stored, fingerprint, is_encoded, was_checked
from jaxft.data.splits import duplicates_across, groups_across, read_manifest
from jaxft.data.stratify import stratified
from jaxft.errors import JaxftError


def open_data(
    source: Any,
    *,
    task: str = "classify",
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    split_seed: int = 0,
    max_bad_fraction: float = 0.0,
    manifest: Path | None = None,
    data_dir: str | None = None,
    group: str | None = None,
    per_class: int | None = None,
    classes: Sequence[str] | None = None,
    replay: Sequence[str] | None = None,
    replay_per_class: int = 20,
    unlabelled: str = "",
    class_names: Sequence[str] | None = None,
) -> Splits:
    """Opens a data set.

    Args:
      source: one of
        - `folder:PATH` or an existing folder: `train/ val/ test/` of class folders, or class folders; of the task "unlabelled"
          any folder of pictures;
        - `csv:FILE`, `parquet:FILE` or `parquet:FOLDER`: columns path (or image), label and, if there, split and group;
        - `hf:OWNER/REPO[:CONFIG][@REVISION]` or `hf:FOLDER`, of Hugging Face;
        - `wds:PATTERN`, WebDataset shards; `records:FOLDER`, shards of `convert_data`; `tfds:NAME`;
        - `python:MODULE:FUNCTION`, a function without arguments that returns any of these;
        - (images, labels); an object with `__len__` and `__getitem__` that gives (image, label); or a dict of either by split.
        Text may end in `?key=value&key=value`: names of columns (image, label, split), of endings (image, label), `group`.
      task: "classify"; "multilabel"; "soft", shares of classes that sum to 1; "regression"; or "unlabelled", pictures alone:
        labels are dropped where there are any, and int32 zeros; there are no class names.
      val_fraction, test_fraction: what is split off, stratified, where the data come in one piece; of data with a training and
        a test split, `val_fraction` of the training data validates.
      split_seed: of that split.
      max_bad_fraction: share of unreadable pictures that may be left out.
      manifest: a split of ours written down before (see `write_manifest`), to be made again; None splits anew.
      data_dir: folder of tensorflow-datasets.
      group: examples of one group are never split: a column of tables; of other text a regular expression whose first group (or
        all it matches) within an example's name is its group.
      per_class: how many training examples of each class are used, drawn by `split_seed`; the others are left aside, validation
        and test stay whole. The draw for a smaller number is part of that for a larger one. None uses all.
      classes: all classes there are, where these data have only some of them; None: those of the data.
      replay: other sources, of earlier tasks: `replay_per_class` training examples of each of their classes (no more than
        `per_class`) join the training split. They are split as these data are, so that what validated or tested them does not.
      unlabelled: pictures for `Splits.unlabelled`: text as for `source`, any folder of pictures, or "rest", the
        training pictures that `per_class` leaves aside; see `open_unlabelled`. "" is none.
      class_names: of arrays and objects; None numbers them.

    Raises:
      JaxftError: whatever does not fit, with what to do.
    """
    found: dict[str, Any] = {"task": task, "max_bad_fraction": max_bad_fraction, "data_dir": data_dir, "group": group}
    pieces, names, notes = find_data(source, **found, class_names=class_names)
    settings: dict[str, Any] = {"val_fraction": val_fraction, "test_fraction": test_fraction, "split_seed": split_seed}
    if group is not None:
        settings["group"] = group
    if per_class is not None:
        settings["per_class"] = per_class
    notes += dict.fromkeys(part.note for part in pieces.values() if isinstance(part, Stored) and part.note)
    notes += groups_across({split: part for split, part in pieces.items() if split != "all"})
    splits, ours = _split(pieces, settings, manifest, task)
    if classes is not None:  # of splits that do not depend on it
        splits, ours = (among_classes(parts, names, classes, task) for parts in (splits, ours))
        names = tuple(classes)
    if ours:
        notes.append("split by us: " + ", ".join(f"{len(part)} {split}" for split, part in ours.items()))
    rest: Source | None = None
    if per_class is not None:  # of the training split as it is written down, so that no other split depends on it
        splits["train"], rest, more = few_of_each(splits["train"], names, per_class, split_seed, task)
        notes += more
    beside: Source | None = None
    if unlabelled:

        def find(text: str) -> tuple[Mapping[str, Source], list[str]]:
            parts, _, said = find_data(text, **{**found, "task": "unlabelled", "group": None})
            return parts, said

        judged = {split: part for split, part in splits.items() if split in ("val", "test")}
        beside, more = open_unlabelled(unlabelled, rest, judged, find)
        notes += more
    if replay:
        same: dict[str, Any] = {
            "val_fraction": val_fraction,
            "test_fraction": test_fraction,
            "split_seed": split_seed,
            "classes": names,
        }
        # What per_class left aside in an earlier task was not seen there.
        most = replay_per_class if per_class is None else min(replay_per_class, per_class)
        earlier = [open_data(text, **found, **same, per_class=most).train for text in replay]
        splits["train"] = joined(splits["train"], earlier)
        notes.append(f"{sum(map(len, earlier))} training pictures of {len(earlier)} earlier tasks are shown again")
    files = {split: part for split, part in splits.items() if is_encoded(part)}
    if len(files) > 1:
        notes += duplicates_across(files)
    if splits.get("test") is None:
        notes.append("there is no test split: the final figures are on the validation split, which selection has seen")
    ordered = {**{split: splits.get(split) for split in ("train", "val", "test")}, "unlabelled": beside}
    return Splits(
        train=splits["train"],
        val=splits.get("val"),
        test=splits.get("test"),
        class_names=names,
        fingerprint=fingerprint(ordered, names),
        notes=tuple(notes),
        ours=ours,
        settings=settings,
        unlabelled=beside,
    )


def find_data(
    source: Any,
    *,
    task: str = "classify",
    max_bad_fraction: float = 0.0,
    data_dir: str | None = None,
    group: str | None = None,
    class_names: Sequence[str] | None = None,
) -> tuple[dict[str, Source], tuple[str, ...], list[str]]:
    """What a data set holds before we split it, without undecodable pictures; class names; notes. See `open_data`."""
    found, names, notes = read_source(source, task=task, data_dir=data_dir, group=group, class_names=class_names)
    pieces: dict[str, Source] = {}
    for split, part in found.items():
        pieces[split] = part
        if isinstance(part, Files) and part.empty:
            raise JaxftError(f"the class folder '{part.empty[0]}' holds no pictures ({', '.join(sorted(EXTENSIONS))})")
        if is_encoded(part) and not was_checked(part):
            pieces[split], more = drop_bad(part, split, max_bad_fraction)
            notes += more
    return pieces, names, notes


def _split(
    found: dict[str, Source], settings: Mapping[str, Any], manifest: Path | None, task: str
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
        # Of soft labels, the class with the largest share.
        labels = whole.labels.argmax(-1).astype(np.int32) if task == "soft" else whole.labels
        rest = np.arange(len(whole))
        chosen = {}
        if "all" in found and settings["test_fraction"]:
            rest, chosen["test"] = stratified(labels, settings["test_fraction"], settings["split_seed"], whole.groups)
        if settings["val_fraction"]:
            # Of the whole, also where a test split was taken off before.
            share = settings["val_fraction"] * len(whole) / len(rest)
            groups = None if whole.groups is None else [whole.groups[index] for index in rest.tolist()]
            keep, part = stratified(labels[rest], share, settings["split_seed"], groups)
            rest, chosen["val"] = rest[keep], rest[part]
        chosen["train"] = rest
    ours: dict[str, Source] = {split: whole.subset(chosen[split]) for split in ("train", "val", "test") if split in chosen}
    return {**{split: part for split, part in found.items() if split != "all"}, **ours}, ours
