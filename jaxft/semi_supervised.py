"""What a config says of pictures without labels: whether they are read, and how they look."""

from __future__ import annotations

from ml_collections import ConfigDict

from jaxft.augment import Augment, parse
from jaxft.errors import JaxftError

#: The losses of jaxft that learn from pictures without labels.
READERS = ("fixmatch",)


def strong_augment(config: ConfigDict) -> Augment | None:
    """The strong look of unlabelled pictures; None where the config has no such pictures.

    Raises:
      JaxftError: a loss without the pictures it reads or pictures without a loss that reads them, labels that are no classes,
        kept features, or augmentations that change labels.
    """
    name, unlabelled = config.loss.name, config.data.unlabelled
    if not unlabelled:
        if name in READERS:
            raise JaxftError(
                f"config.loss.name is '{name}', which learns from pictures without labels: set config.data.unlabelled to a "
                "folder of them, or to 'rest' beside config.data.per_class"
            )
        return None
    if name not in READERS and ":" not in name:
        raise JaxftError(
            f"config.data.unlabelled is '{unlabelled}', and the loss ({name or 'the usual one'}) reads labels alone: set "
            f"config.loss.name to {' or '.join(map(repr, READERS))}"
        )
    if config.data.task not in ("classify", "soft"):
        raise JaxftError(
            f"config.data.unlabelled: the network's answers are taken for classes, which the task '{config.data.task}' does "
            "not have: leave it empty"
        )
    if config.features.cache:
        raise JaxftError(
            "config.features.cache keeps the features of labelled pictures alone: set it to False, or leave "
            "config.data.unlabelled empty"
        )
    strong = parse(config.input.strong_augment)
    strong.check(config.model.in_channels)
    if strong.changes_labels:
        raise JaxftError(
            f"config.input.strong_augment ('{strong}') changes labels or mixes pictures, and unlabelled ones have no label: "
            "leave that out"
        )
    return strong
