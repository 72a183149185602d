"""The PyTorch side: torchvision's and timm's networks, in every variant that may be the fastest. Run by `vs_pytorch.py`.

Needs torch, torchvision and timm, and nothing of jaxft. A work is {"model", "part", "batch", "size", "classes", "threads",
"variant"}; a variant is a '+'-joined choice of "eager" or "compile", "channels_last", and for the part "head" "no_grad".
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import timm
import torch
import torchvision
from serve import Missing, Prepared, matmul_peak, serve, timed, warmed
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def build(name: str, classes: int) -> nn.Module:
    """The network, torchvision's where it has one, randomly initialised."""
    torch.manual_seed(0)
    if name in torchvision.models.list_models(module=torchvision.models):
        return torchvision.models.get_model(name, weights=None, num_classes=classes)
    if name in timm.list_models():
        return timm.create_model(name, pretrained=False, num_classes=classes)
    raise Missing(f"neither torchvision nor timm has '{name}'")


def split_head(model: nn.Module) -> nn.Module:
    """Takes the last linear layer out of `model`, which then gives features, and returns it."""
    path, head = [(path, layer) for path, layer in model.named_modules() if isinstance(layer, nn.Linear)][-1]
    owner, _, name = path.rpartition(".")
    setattr(model.get_submodule(owner), name, nn.Identity())
    return head


def train_step(model: nn.Module, image: torch.Tensor, label: torch.Tensor) -> Callable[[], Any]:
    """SGD with momentum 0.9 on cross-entropy over what requires a gradient; torch's fused optimizer."""
    trained = [leaf for leaf in model.parameters() if leaf.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-3, momentum=0.9, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(image), label).backward()
        optimizer.step()

    return step


class OnFrozen(nn.Module):
    """A head on a backbone that runs without recording anything."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            features = self.backbone(image)
        return self.head(features)


def head_only(model: nn.Module, no_grad: bool, compiled: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """All frozen but the last linear layer: BatchNorm and dropout below it in evaluation mode."""
    model.eval().requires_grad_(False)
    if not no_grad:
        last = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
        last.requires_grad_(True)
        return compiled(model)
    head = split_head(model).requires_grad_(True)
    return OnFrozen(compiled(model), head)


def inference(model: nn.Module, image: torch.Tensor) -> Callable[[], Any]:
    def step() -> torch.Tensor:
        with torch.inference_mode():
            return model(image)

    return step


def prepare(work: dict[str, Any]) -> Prepared:
    options = set(work["variant"].split("+"))
    torch.set_num_threads(work["threads"])
    torch.set_flush_denormal(True)  # as XLA does
    layout = torch.channels_last if "channels_last" in options else torch.contiguous_format
    model = build(work["model"], work["classes"]).to(memory_format=layout)
    image = torch.randn(work["batch"], 3, work["size"], work["size"]).to(memory_format=layout)
    label = torch.randint(work["classes"], (work["batch"],))
    compiled = torch.compile if "compile" in options else (lambda module: module)
    started = time.perf_counter()
    match work["part"]:
        case "train":
            step = train_step(compiled(model.train()), image, label)
        case "head":
            step = train_step(head_only(model, "no_grad" in options, compiled), image, label)
        case "eval":
            step = inference(compiled(model.eval()), image)
        case part:
            raise Missing(f"the torch side has no part '{part}'")
    # The counter works on eager operations only; a compiled variant has the FLOPs of its eager twin.
    flops = None if "compile" in options else count_flops(step)
    started = started if flops is None else time.perf_counter()
    return warmed(timed(step), work["batch"], flops, started)


def count_flops(step: Callable[[], Any]) -> float:
    """FLOPs of the convolutions and matrix products of one call, forward and backward, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())


def peak() -> float:
    def multiply(size: int) -> Callable[[], Any]:
        left, right = torch.randn(size, size), torch.randn(size, size)
        return lambda: torch.matmul(left, right)

    return matmul_peak(multiply)


def versions() -> dict[str, str]:
    return {"torch": torch.__version__, "torchvision": torchvision.__version__, "timm": timm.__version__}


if __name__ == "__main__":
    serve(prepare, versions=versions, peak=peak)
