"""What is measured: network, image size and batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from jaxft.errors import JaxftError, near

PARTS = ("train", "head", "eval")


@dataclasses.dataclass(frozen=True)
class Workload:
    """`classes` is the width of the logits; `note` is what a reader of the ratio must know."""

    model: str
    size: int
    batch: int
    classes: int = 1000
    note: str = ""

    @property
    def name(self) -> str:
        return f"{self.model}@{self.size}"


_FOLDED = (
    "at 32 px torchvision's adaptive pooling repeats one pixel 49 times and multiplies with the whole 25,088 x 4,096 matrix; "
    "jaxft computes the same function with that matrix summed over its 49 positions, which is part of the ratio"
)

WORKLOADS = tuple(
    Workload(*row)
    for row in (
        ("vgg16", 32, 64, 10, _FOLDED),
        ("vgg16", 224, 8),
        ("vgg16_bn", 32, 64, 10, _FOLDED),
        ("resnet50", 224, 8),
        ("efficientnet_lite0", 224, 8, 1000, "timm's pads symmetrically, jaxft's as TensorFlow does: as many operations"),
        ("vit_small_patch16_224", 224, 8),
    )
)


def chosen(names: Iterable[str] | None, options: Sequence[Workload]) -> list[Workload]:
    """The workloads with these names (`vgg16@32`, or `vgg16` for each of its sizes); None is all.

    Raises:
      JaxftError: a name that is none.
    """
    if names is None:
        return list(options)
    found: list[Workload] = []
    for name in names:
        matching = [option for option in options if name in (option.name, option.model)]
        if not matching:
            known = [option.name for option in options]
            raise JaxftError(f"no workload is called '{name}'{near(name, known)}; there are {', '.join(known)}")
        found += [option for option in matching if option not in found]
    return found
