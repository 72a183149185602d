"""torchvision's side of `loading.py`: a DataLoader over an ImageFolder. Needs torch and torchvision, and nothing of jaxft.

A work is {"variant", "root", "examples", "batch", "size", "threads"}; a variant is "PIL+workers=N" (pictures are Pillow's until
they are cropped) or "tensor+workers=N" (torchvision's own decoder and its resize of tensors). N is the DataLoader's
`num_workers`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torchvision
from fed import check, fed
from PIL import Image, features
from serve import Missing, Prepared, serve
from torch.utils.data import DataLoader, RandomSampler
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

#: An epoch that does not end: a DataLoader would start its workers anew at the end of each.
ENDLESS = 1 << 40


def read(path: str) -> torch.Tensor:
    """uint8 [3, H, W]."""
    return decode_image(path, mode=ImageReadMode.RGB)


def folder(root: str, kind: str, size: int) -> ImageFolder:
    crop = v2.RandomResizedCrop(size, antialias=True)
    match kind:
        case "PIL":
            return ImageFolder(root, v2.Compose([crop, v2.PILToTensor()]))
        case "tensor":
            return ImageFolder(root, crop, loader=read)
    raise Missing(f"torchvision has no variant '{kind}'")


def prepare(work: dict[str, Any]) -> Prepared:
    torch.set_num_threads(work["threads"])
    kind, workers = work["variant"].split("+workers=")
    pictures = folder(work["root"], kind, work["size"])
    check(len(pictures), work)
    sampler = RandomSampler(pictures, num_samples=ENDLESS)
    loader = DataLoader(pictures, work["batch"], sampler=sampler, num_workers=int(workers), drop_last=True)

    @contextlib.contextmanager
    def batches() -> Iterator[Iterator[Any]]:
        yield iter(loader)  # it ends its processes when it is let go

    return fed(batches, work["batch"])


def versions() -> dict[str, str]:
    found = {"torch": torch.__version__, "torchvision": torchvision.__version__, "pillow": Image.__version__}
    return {**found, "libjpeg_turbo": str(features.version("libjpeg_turbo"))}


if __name__ == "__main__":
    serve(prepare, versions=versions)
