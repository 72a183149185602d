"""Lets torchvision and timm be imported beside a CPU build of torch, whose index has no matching compiled operators.

Only models and transforms are used here, and none of them calls those operators: declaring their names is enough.
"""

import torch

_LIBRARY = torch.library.Library("torchvision", "DEF")
for _name in (
    "nms",
    "qnms",
    "roi_align",
    "_roi_align_backward",
    "ps_roi_align",
    "_ps_roi_align_backward",
    "roi_pool",
    "_roi_pool_backward",
    "ps_roi_pool",
    "_ps_roi_pool_backward",
    "deform_conv2d",
    "_deform_conv2d_backward",
):
    _LIBRARY.define(f"{_name}(Tensor x) -> Tensor")


def check() -> None:
    """Says which versions make the fixtures."""
    import torchvision

    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}")
