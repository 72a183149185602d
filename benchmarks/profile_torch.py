"""Where the time of torch's step goes, by its own profiler: milliseconds of each operation, its own alone.

    TORCHENV/bin/python benchmarks/profile_torch.py resnet50 --part=train --size=224 --batch=8

Runs in torch's environment, on the work of `vs_pytorch.py`. The counterpart of `profile_step.py`.
"""

from __future__ import annotations

import argparse

import torch
from torch_worker import prepare


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--part", default="train", choices=("train", "head", "eval"))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--variant", default="eager+channels_last", help="as in vs_pytorch.py's results")
    parser.add_argument("--calls", type=int, default=5)
    parser.add_argument("--rows", type=int, default=15)
    options = parser.parse_args()
    names = ("model", "part", "size", "batch", "variant")
    work = prepare({**{name: getattr(options, name) for name in names}, "classes": 1000, "threads": 2})
    work.run(2)
    bare = min(work.run(1) for _ in range(options.calls))
    with torch.profiler.profile() as profiler:
        work.run(options.calls)
    own = sorted(((row.self_cpu_time_total / 1e3 / options.calls, row.key) for row in profiler.key_averages()), reverse=True)
    total = sum(spent for spent, _ in own)
    print(f"{options.model} {options.part} {options.variant}: {bare:.4f} s a step; {total / 1e3:.4f} s under the profiler")
    for spent, name in own[: options.rows]:
        print(f"{spent / total:>6.1%} {spent:>9.2f} ms  {name}")


if __name__ == "__main__":
    main()
