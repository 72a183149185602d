"""A few training examples of each class: what there is to learn from where labels are dear."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxft.data.sources import Source
from jaxft.errors import JaxftError
from jaxft.streams import FEW, stream


def few_of_each(
    train: Source, class_names: Sequence[str], per_class: int, seed: int, task: str
) -> tuple[Source, Source, list[str]]:
    """`per_class` training examples of each class, or all of a class that has fewer; the others; and what a user should know.

    A class's examples are shuffled by the seed and the first ones taken, so those of a smaller `per_class` are among those of
    a larger one, and what is drawn of one class does not depend on the others'.

    Args:
      train: the training split; labels [N] int32, or of soft labels [N, K] the class with the largest share counts.
      class_names: K names.
      per_class: at least 1.
      seed: of the draw.
      task: see `open_data`.

    Raises:
      JaxftError: a task without classes, a number below 1.
    """
    if task not in ("classify", "soft"):
        raise JaxftError(
            f"config.data.per_class counts the pictures of a class, which the task '{task}' does not have: set it to None"
        )
    if per_class < 1:
        raise JaxftError(f"config.data.per_class is {per_class}: it must be at least 1 (None uses all training pictures)")
    labels = train.labels.argmax(-1) if task == "soft" else train.labels
    drawn = [
        stream(seed, FEW, index=number).permutation(np.flatnonzero(labels == number))[:per_class]
        for number in range(len(class_names))
    ]
    chosen = np.sort(np.concatenate(drawn))
    few, rest = train.subset(chosen), train.subset(np.setdiff1d(np.arange(len(train)), chosen))
    notes = [f"of each class {per_class} training pictures are used, {len(few)} of {len(train)}"]
    # Of a class without any, other lines speak; of one among several tasks' classes nothing is to be said.
    counted = zip(class_names, drawn, strict=True)
    short = [f"'{name}' has {len(found)}" for name, found in counted if 0 < len(found) < per_class]
    if short:
        more = f", and {len(short) - 4} more have fewer" if len(short) > 4 else ""
        notes.append(f"not every class has {per_class} training pictures: {', '.join(short[:4])}{more}")
    return few, rest, notes
