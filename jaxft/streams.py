"""Randomness on the host: streams of NumPy's Philox, each a pure function of its key.

Philox is a counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) whose stream NumPy
keeps stable. No two streams overlap: the seed and the use are its key, what is drawn for is the upper half of its counter.
"""

from __future__ import annotations

import numpy as np

#: What a seed is used for.
ORDER, AUGMENT, SPLIT, CLASS, FEW, UNLABELLED = 1, 2, 3, 4, 5, 6


def stream(seed: int, use: int, epoch: int = 0, index: int = 0) -> np.random.Generator:
    """The randomness of a seed in one use of it, for (epoch, index)."""
    key = np.array([seed % 2**64, use], np.uint64)
    counter = np.array([0, 0, index, epoch], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def derived(seed: int, use: int, index: int = 0) -> int:
    """A seed made of a seed, for a use that has an order or augmentations of its own."""
    return int(stream(seed, use, index=index).integers(2**31))


def augment_rng(seed: int, shown: int, index: int) -> np.random.Generator:
    """The randomness of one example in one pass over it, whatever batch, thread, process or host it falls to."""
    return stream(seed, AUGMENT, shown, index)
