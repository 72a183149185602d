"""The order of training examples, as a pure function of (seed, step).

Position p = step * batch + j of the endless stream belongs to epoch p // n and shows example `permutation(seed, epoch)[p % n]`.
Every example comes exactly once an epoch, batches run across the borders of epochs, and any position is reached at once, so
a resumed run needs only its step. The permutation is NumPy's, drawn from Philox keyed by (seed, epoch): Philox is a
counter-based generator whose stream NumPy keeps stable; grain's shuffle would give the same contract, but its stream is an
internal of grain.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

# Different uses of one seed must not share a stream.
_ORDER, _AUGMENT = 1, 2


@functools.lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order of an epoch: int64 [n]."""
    return _generator(seed, _ORDER, epoch, 0).permutation(n)


def augment_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The randomness of one example in one epoch, whatever batch, thread or host it falls to."""
    return _generator(seed, _AUGMENT, epoch, index)


def _generator(seed: int, use: int, epoch: int, index: int) -> np.random.Generator:
    """Philox with key (seed, use) and the counter's upper words (epoch, index): no two streams ever overlap."""
    key = np.array([seed % 2**64, use], np.uint64)
    counter = np.array([0, 0, index, epoch], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def batch_positions(step: int, batch_size: int, rows: Sequence[int]) -> list[int]:
    """Positions in the stream of some rows of a step's batch."""
    return [step * batch_size + int(row) for row in rows]


def batch_examples(step: int, batch_size: int, seed: int, n: int) -> list[int]:
    """The examples of a step's whole batch."""
    return [example_at(position, seed, n)[1] for position in batch_positions(step, batch_size, range(batch_size))]


def example_at(position: int, seed: int, n: int) -> tuple[int, int]:
    """(epoch, example) of a position."""
    epoch, place = divmod(position, n)
    return epoch, int(permutation(seed, epoch, n)[place])
