"""Pictures to learn from whose labels are not looked at: where they come from, and batches that show each of them twice."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Generator, Mapping, Sequence

import numpy as np

from jaxft.augment import Augment, parse
from jaxft.augment.two_looks import LOOKS
from jaxft.data.feeding import LoadTimes
from jaxft.data.loading import Loader, Shown
from jaxft.data.order import Order
from jaxft.data.sources import Arrays, Source, is_encoded
from jaxft.data.unlabelled import without_labels
from jaxft.decoding.reading import Reading
from jaxft.errors import JaxftError
from jaxft.preprocessing import Preprocessing
from jaxft.streams import UNLABELLED, derived

REST = "rest"


def open_unlabelled(
    text: str,
    rest: Source | None,
    judged: Mapping[str, Source],
    find: Callable[[str], tuple[Mapping[str, Source], list[str]]],
) -> tuple[Source, list[str]]:
    """Opens pictures whose labels are not looked at.

    Args:
      text: "rest", or text that `find` takes, whose training split, or the whole where it has none, is taken.
      rest: the training pictures that were left aside; None where none were.
      judged: validation and test split: pictures of the same bytes are left out, and a note says so.
      find: opens text: pictures without labels by split, and notes.

    Raises:
      JaxftError: nothing was left aside, no such data, or no pictures.
    """
    notes: list[str] = []
    if text == REST:
        if rest is None:
            raise JaxftError(
                "config.data.unlabelled is 'rest', the pictures that config.data.per_class leaves aside: set "
                "config.data.per_class too, e.g. to 5, or name a folder of pictures"
            )
        found = without_labels(rest)
    else:
        pieces, notes = find(text)
        found = pieces["train"] if "train" in pieces else pieces["all"]
    found, more = _unjudged(found, judged, known_apart=text == REST)
    if not len(found):
        raise JaxftError(f"config.data.unlabelled is '{text}', and there are no pictures left to learn from without labels")
    return found, [*notes, *more, f"{len(found):,} pictures are learnt from without their labels"]


def _unjudged(source: Source, judged: Mapping[str, Source], *, known_apart: bool) -> tuple[Source, list[str]]:
    """The pictures that no other split is judged on, told by their bytes."""
    notes: list[str] = []
    for split, part in judged.items():
        own, theirs = _digests(source), _digests(part)
        if own is None or theirs is None or is_encoded(source) != is_encoded(part):
            if not known_apart:
                notes.append(f"nobody can tell whether config.data.unlabelled holds pictures of {split}: see to it yourself")
            continue
        seen = set(theirs)
        keep = [number for number, digest in enumerate(own) if digest not in seen]
        if gone := len(source) - len(keep):
            notes.append(f"{gone} pictures of config.data.unlabelled are in {split} too and are left out")
            source = source.subset(keep)
    return source, notes


def _digests(source: Source) -> Sequence[str] | None:
    """A hash of each picture's bytes, or of its pixels where they lie in memory; None where they would have to be read."""
    if is_encoded(source):
        return source.digests
    if not isinstance(source, Arrays):
        return None
    images = (np.ascontiguousarray(source[number][0]) for number in range(len(source)))
    return [hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest() for image in images]


def unlabelled_batches(
    source: Source,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    weak: str | Augment = "crop_flip",
    strong: str | Augment = "crop_flip, rand_augment(2, 10), random_erasing(1.0)",
    channels: int = 3,
    rows: Sequence[int] | np.ndarray | None = None,
    threads: int | None = None,
    processes: int = 0,
    prefetch: int = 2,
    scaled_decode: bool = True,
    times: LoadTimes | None = None,
) -> Generator[dict[str, np.ndarray], None, None]:
    """Endless batches of unlabelled pictures, each in two looks, from step `start_step` on: a function of (seed, step) alone.

    Every picture comes once an epoch, in an order of its own: that of `train_batches` with the same seed says nothing of it.
    The windows of the two looks are drawn apart. The rest of both augmentations is `jaxft.augment.two_looks`, for the step.

    Args:
      source: the pictures.
      batch_size: of the global batch of these pictures.
      weak, strong: lists of augmentations; see `jaxft.augment.parse`.
      threads, processes: as many for each look.
      preprocessing, seed, start_step, channels, rows, prefetch, scaled_decode, times: as of `jaxft.data.train_batches`.

    Yields:
      `unlabelled_weak` and `unlabelled_strong` uint8 [b, S, S, C] (S of each window's side), `unlabelled_index` and
      `unlabelled_shown` int32 [b]. Close the generator to end its threads.

    Raises:
      JaxftError: no pictures, a batch size below 1, a picture that cannot be read.
    """
    if not len(source):
        raise JaxftError("there are no unlabelled pictures")
    if batch_size < 1:
        raise JaxftError(f"the batch size of unlabelled pictures is {batch_size}")
    order = Order(derived(seed, UNLABELLED), len(source))
    chosen = range(batch_size) if rows is None else [int(row) for row in rows]

    def ahead(look: str, augment: str | Augment) -> Generator[tuple[list[Shown], list[np.ndarray]], None, None]:
        window = parse(augment).window
        reading = Reading(preprocessing, channels, window, derived(seed, UNLABELLED, LOOKS[look]), scaled_decode)
        loader = Loader(source, reading, threads, processes, times or LoadTimes())
        return loader.ahead(order.batches(start_step, batch_size, chosen), prefetch)

    looks = {look: ahead(look, augment) for look, augment in zip(LOOKS, (weak, strong), strict=True)}

    def batches() -> Generator[dict[str, np.ndarray], None, None]:
        with contextlib.ExitStack() as ends:
            for one in looks.values():
                ends.enter_context(contextlib.closing(one))
            while True:
                read = {look: next(one) for look, one in looks.items()}
                numbers = np.array([(shown % 2**31, index) for shown, index in read["unlabelled_weak"][0]], np.int32)
                pictures = {look: np.stack(images) for look, (_, images) in read.items()}
                yield {**pictures, "unlabelled_shown": numbers[:, 0], "unlabelled_index": numbers[:, 1]}

    return batches()
