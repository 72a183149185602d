"""Which pictures are the same, or nearly: perceptual hashes, compared without looking at every pair.

A picture's hash is 64 bits of a discrete cosine transform (pHash: Zauner, "Implementation and Benchmarking of Perceptual Image
Hash Functions", 2010). Near hashes are found by multi-index hashing (Norouzi, Punjani & Fleet, CVPR 2012), and believed only
where the pictures, 16x16 in colour, correlate. docs/pictures.md says what that finds and what it does not.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

#: Bits in which two hashes may differ. Of photographs saved anew, halved, cut by 2% or made brighter by a quarter, 95% or more
#: lie within.
NEAR = 8
#: What two pictures must correlate by. Different photographs of the same kind of thing do not.
_CORRELATION = 0.95
#: Candidates that are looked at; where more are near, most pictures look alike and a list would help nobody.
MOST_PAIRS = 1_000_000
_LOOKS_A_PAIR = 1000
_SIDE = 32
_BANDS = 4
_N = np.arange(_SIDE)
_COSINES = np.cos(np.pi * (2 * _N + 1) * _N[:8, None] / (2 * _SIDE))


def perceptual_hash(small: np.ndarray) -> tuple[int, np.ndarray]:
    """The hash of a picture given as uint8 [32, 32, 3], and the picture as uint8 [16, 16, 3]."""
    grey = small @ np.array([0.299, 0.587, 0.114])
    low = (_COSINES @ grey @ _COSINES.T).ravel()
    bits = np.packbits(low > np.median(low[1:]))  # the first is the brightness
    quarters = small.reshape(16, 2, 16, 2, 3).astype(np.uint16).sum((1, 3))
    return int.from_bytes(bits.tobytes()), ((quarters + 2) // 4).astype(np.uint8)


def near_pairs(hashes: np.ndarray, distance: int, *, most: int = MOST_PAIRS) -> tuple[np.ndarray, bool]:
    """All pairs i < j of uint64 [N] that differ in at most `distance` bits.

    Returns:
      int64 [P, 2] in ascending order, and whether these are all: the search ends when there are more than `most`.
    """
    found, pending = np.empty(0, np.int64), [np.empty(0, np.int64)]
    waiting = looked = 0
    for first, second in _candidates(hashes, distance):
        near = (second > first) & (np.bitwise_count(hashes[first] ^ hashes[second]) <= distance)
        pending.append(first[near] * len(hashes) + second[near])
        waiting, looked = waiting + len(pending[-1]), looked + len(first)
        if waiting > most:
            found, pending, waiting = np.unique(np.concatenate([found, *pending])), [], 0
        if len(found) > most or looked > most * _LOOKS_A_PAIR:
            return np.stack(np.divmod(found[:most], len(hashes)), axis=1), False
    found = np.unique(np.concatenate([found, *pending]))
    return np.stack(np.divmod(found, max(len(hashes), 1)), axis=1), True


def _candidates(hashes: np.ndarray, distance: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of which one band of 16 bits is near, each pair at least once, both ways round: a million and some at a time."""
    # If four bands together differ in `distance` bits, one of them differs in a quarter of those at most.
    flips = [
        sum(1 << bit for bit in bits)
        for number in range(distance // _BANDS + 1)
        for bits in itertools.combinations(range(16), number)
    ]
    for band in range(_BANDS):
        part = (hashes >> np.uint64(16 * band)).astype(np.uint16)
        order = np.argsort(part, kind="stable")
        starts = np.searchsorted(part[order], np.arange(65537))
        for flip in flips:
            probes = (part ^ np.uint16(flip)).astype(int)
            yield from _members(order, starts[probes], starts[probes + 1])


def _members(order: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(i, j) for every i and every j of its bucket, `order[starts[i]:ends[i]]`."""
    sizes = ends - starts
    rows = np.flatnonzero(sizes)
    total = np.cumsum(sizes[rows])
    for block in np.split(rows, np.searchsorted(total, np.arange(1 << 20, int(total[-1]) if len(rows) else 0, 1 << 20))):
        lengths = sizes[block]
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        yield np.repeat(block, lengths), order[np.repeat(starts[block], lengths) + within]


def alike(pictures: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """bool [P]: whether each pair of uint8 [N, 16, 16, 3] correlates, each channel around its own mean; two empty pictures
    are alike where they are of one colour."""
    found = []
    for some in np.array_split(pairs, -(-len(pairs) // 8192)) if len(pairs) else []:
        first, second = (pictures[some[:, side]].astype(np.float32) for side in (0, 1))
        means = first.mean((1, 2)), second.mean((1, 2))
        first, second = first - means[0][:, None, None], second - means[1][:, None, None]
        both = np.einsum("nijc,nijc->n", first, second)
        own = np.einsum("nijc,nijc->n", first, first), np.einsum("nijc,nijc->n", second, second)
        flat = np.maximum(*own) < first[0].size  # a deviation below 1
        same = (np.abs(means[0] - means[1]) < 4).all(1)
        found.append(np.where(flat, same, both >= _CORRELATION * np.sqrt(own[0] * own[1]) + 1e-6))
    return np.concatenate(found) if found else np.zeros(0, bool)


def joined(count: int, pairs: np.ndarray) -> list[list[int]]:
    """The groups of 0..count-1 that pairs join, each ascending, of two members at least."""
    parent = list(range(count))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for first, second in pairs.tolist():
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    groups: dict[int, list[int]] = {}
    for node in sorted(set(pairs.ravel().tolist())):
        groups.setdefault(root(node), []).append(node)
    return list(groups.values())


def find_groups(digests: np.ndarray, hashes: np.ndarray, pictures: np.ndarray, near: int | None) -> tuple[list, list, bool]:
    """Groups of pictures with the same digest, and of those that are near without being all the same.

    Args:
      digests: bytes [N]; hashes, pictures: see `perceptual_hash`.
      near: bits in which hashes may differ; None looks for no near ones.

    Returns:
      Groups of the same, groups of the near (all their copies with them), and whether these are all.
    """
    _, first, which = np.unique(digests, return_index=True, return_inverse=True)
    copies = np.stack([first[which], np.arange(len(digests))], axis=1)
    copies = copies[copies[:, 0] != copies[:, 1]]
    same = joined(len(digests), copies)
    if near is None:
        return same, [], True
    chosen = np.sort(first)
    pairs, whole = near_pairs(hashes[chosen], near)
    pairs = chosen[pairs]
    pairs = pairs[alike(pictures, pairs)]
    groups = joined(len(digests), np.concatenate([copies, pairs]))
    return same, [group for group in groups if len({digests[i] for i in group}) > 1], whole
