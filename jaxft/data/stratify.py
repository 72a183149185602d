"""Splitting a share off: of every class, of every label, of the whole range of a value; groups stay together.

`rest` and `part` are positions, ascending. A seed gives the same split on any machine and in any version.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxft.errors import JaxftError
from jaxft.streams import SPLIT, stream

#: Quantile bins by which values are spread where groups must stay together.
_BINS = 10


def stratified(
    labels: np.ndarray, fraction: float, seed: int, groups: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Splits positions in two, (rest, part), both ascending; `fraction` goes to the part.

    Classes ([N] int32) give `round(fraction * n)` examples each, at least one where they have two. Multi-label targets [N, K]
    are spread by iterative stratification (Sechidis, Tsoumakas & Vlahavas, 2011), values [N] f32 by quantiles: the part takes
    one at random out of each of as many bins as it has examples. With `groups` all of a group are on one side, and the
    share of every class, label or quantile bin is as near to `fraction` as groups taken one by one come: where every group has
    one class, within half the largest group of the class.

    Args:
      labels: what is spread evenly.
      fraction: in [0, 1).
      seed: of all that is random.
      groups: [N], "" is a group of its own.

    Raises:
      JaxftError: a fraction outside [0, 1), a part that would be empty, one group only.
    """
    if not 0 <= fraction < 1:
        raise JaxftError(f"a fraction of {fraction} cannot be split off: it must lie in [0, 1)")
    rng = stream(seed, SPLIT)
    if not fraction:
        chosen = np.zeros(0, int)
    elif groups is not None:
        chosen = _by_groups(labels, fraction, rng, groups)
    elif labels.dtype == np.int32:
        chosen = _by_classes(labels, fraction, rng)
    elif labels.ndim == 2:
        chosen = _by_labels(labels > 0, fraction, rng)
    else:
        chosen = _by_quantiles(labels, fraction, rng)
    if fraction and not len(chosen):
        raise JaxftError(f"{len(labels)} examples are too few to split {fraction:.0%} off")
    chosen = np.sort(chosen)
    return np.setdiff1d(np.arange(len(labels)), chosen), chosen


def _count(fraction: float, size: int) -> int:
    """How many of `size` go to the part: at least one on either side where there are two."""
    count = round(fraction * size)
    return min(max(count, 1), size - 1) if size >= 2 else count


def _by_classes(labels: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    order = np.argsort(labels, kind="stable")
    classes = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    return np.concatenate([rng.permutation(members)[: _count(fraction, len(members))] for members in classes])


def _by_quantiles(values: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    count = _count(fraction, len(values))
    order = np.lexsort((rng.random(len(values)), values))  # equal values in random order
    few = min(count, len(values) - count)  # of the smaller side one is drawn out of each bin
    edges = np.arange(few + 1) * len(values) // max(few, 1)
    drawn = order[edges[:-1] + (rng.random(few) * np.diff(edges)).astype(int)]
    return drawn if few == count else np.setdiff1d(order, drawn)


def _by_labels(flags: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Iterative stratification in two subsets; `flags` bool [N, K]."""
    size = len(flags)
    wanted = np.array([fraction, 1 - fraction])
    room = wanted * size  # [2] how many more examples the part and the rest want
    of_label = wanted[:, None] * flags.sum(0)  # [2, K] and how many more of each label
    order = rng.permutation(size)
    coin = rng.integers(0, 2, size)
    free = np.ones(size, bool)
    in_part = np.zeros(size, bool)

    def put(example: int, side: int) -> None:
        free[example] = False
        in_part[example] = side == 0
        room[side] -= 1
        of_label[side, flags[example]] -= 1

    left = flags.sum(0)
    while left.any():
        label = int(np.argmin(np.where(left > 0, left, size + 1)))  # the rarest: it leaves least room for mistakes
        mine = order[free[order] & flags[order, label]]
        for example in mine.tolist():
            difference = of_label[0, label] - of_label[1, label] or room[0] - room[1]
            put(example, int(coin[example]) if abs(difference) < 1e-9 else int(difference < 0))
        left -= flags[mine].sum(0)
    for example in order[free[order]].tolist():
        put(example, int(room[0] < room[1]))
    if size >= 2 and in_part.all() | ~in_part.any():  # a small share of few: one on either side, as of a class
        in_part[order[0]] ^= True
    return np.flatnonzero(in_part)


def _by_groups(labels: np.ndarray, fraction: float, rng: np.random.Generator, groups: Sequence[str]) -> np.ndarray:
    """Groups one by one in random order, each to the part where that brings the shares nearer to `fraction`.

    The distance is the sum over classes of the squared relative error. The best of several orders is taken.
    """
    names = np.array([group or f"\0{number}" for number, group in enumerate(groups)])
    _, group_of = np.unique(names, return_inverse=True)
    count = int(group_of.max()) + 1
    if count < 2:
        raise JaxftError(f"all {len(labels)} examples are in one group ('{groups[0]}'): nothing can be split off")
    examples, strata = _strata(labels)
    kinds = int(strata.max()) + 1
    pairs, sizes = np.unique(group_of[examples] * kinds + strata, return_counts=True)
    kind = pairs % kinds
    totals = np.bincount(kind, sizes, kinds)
    share = sizes / totals[kind]  # of the class, that this group holds
    bounds = np.searchsorted(pairs // kinds, np.arange(count + 1))

    best: tuple[float, np.ndarray] | None = None
    for _ in range(max(1, min(32, 100_000 // count))):
        missing = np.full(kinds, fraction)
        taken = np.zeros(count, bool)
        for group in rng.permutation(count):
            mine = slice(bounds[group], bounds[group + 1])
            given = share[mine]
            if given @ (given - 2 * missing[kind[mine]]) < 0:
                missing[kind[mine]] -= given
                taken[group] = True
        if not taken.any() or taken.all():
            taken[np.argmin(np.bincount(group_of))] ^= True  # no share is near: the smallest group, so that none is empty
            missing = fraction - np.bincount(kind, share * taken[pairs // kinds], kinds)
        error = float(missing @ missing)
        if best is None or error < best[0]:
            best = error, taken
    assert best is not None
    return np.flatnonzero(best[1][group_of])


def _strata(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(examples, strata): what each example counts for: each of its labels, and having none is a stratum too."""
    if labels.dtype == np.int32:
        return np.arange(len(labels)), np.unique(labels, return_inverse=True)[1]
    if labels.ndim == 1:
        rank = np.argsort(np.argsort(labels, kind="stable"), kind="stable")
        return np.arange(len(labels)), rank * min(_BINS, len(labels)) // len(labels)
    everything = np.column_stack([labels > 0, ~(labels > 0).any(1)])
    examples, found = np.nonzero(everything)
    return examples, np.unique(found, return_inverse=True)[1]
