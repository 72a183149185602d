"""The two looks of pictures without labels, on the device."""

from __future__ import annotations

from jaxft.augment.recipe import Augment
from jaxft.streams import UNLABELLED, derived
from jaxft.typing import Batch

#: What the looks of a picture are called in a batch, and the number of their random stream.
LOOKS = {"unlabelled_weak": 1, "unlabelled_strong": 2}


def two_looks(batch: Batch, *, weak: Augment, strong: Augment, seed: int, size: int) -> Batch:
    """A batch whose unlabelled pictures look as the network is to see them, to be traced into the training step.

    Labels and mixing are no part of it: these pictures have no label. The randomness of a picture depends on (seed, shown,
    index) and the look, and is none of a labelled picture's.

    Args:
      batch: with what `jaxft.data.unlabelled_batches` yields; as it is, where it has nothing of that.
      weak, strong: as given to `unlabelled_batches`.
      seed: of the run.
      size: S.

    Returns:
      The batch with other `unlabelled_weak` and `unlabelled_strong` [U, S, S, C].
    """
    if not LOOKS.keys() <= batch.keys():
        return batch
    changed = {}
    for (look, number), augment in zip(LOOKS.items(), (weak, strong), strict=True):
        given = {"image": batch[look], "shown": batch["unlabelled_shown"], "index": batch["unlabelled_index"]}
        changed[look] = augment.images(given, seed=derived(seed, UNLABELLED, number), size=size)
    return {**batch, **changed}
