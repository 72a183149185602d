"""jaxft against PyTorch on the same work: images/s and their ratio, measured in alternation.

    python benchmarks/vs_pytorch.py --torch-python=/path/to/torch/environment/bin/python

Runs in jaxft's environment; the other one needs torch, torchvision and timm. Both sides have the same cores, f32, the same
batch, SGD with momentum 0.9 on cross-entropy, and input that is already in memory. PyTorch's fastest variant counts. See
docs/benchmarks.md.
"""

from __future__ import annotations

import sys

from compare import arguments, compare, run
from workloads import WORKLOADS


def torch_variants(part: str, compiled: bool) -> list[str]:
    """Every way to run a part in torch that may be the fastest.

    A frozen backbone that torch.compile is given inside `no_grad` gets all that one without gradients gets, and more
    fusions; so the former alone is tried compiled.
    """
    plain = ["eager", "eager+channels_last"]
    fast = ["compile", "compile+channels_last"] if compiled else []
    if part != "head":
        return plain + fast
    return plain + [f"{variant}+no_grad" for variant in plain + fast]


def main() -> int:
    parser = arguments("jaxft against PyTorch on the same work.", WORKLOADS, "vs_pytorch.json")
    parser.add_argument("--torch-python", required=True, help="the Python of an environment with torch, torchvision, timm")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out (the row says so)")
    options = parser.parse_args()
    sides = {"jaxft": (sys.executable, "jaxft_worker.py"), "torch": (options.torch_python, "torch_worker.py")}
    return compare(
        options,
        WORKLOADS,
        lambda workload: sides,
        lambda side, part: torch_variants(part, not options.no_compile) if side == "torch" else ["default"],
        {"torch_compile": not options.no_compile},
    )


if __name__ == "__main__":
    run(main)
