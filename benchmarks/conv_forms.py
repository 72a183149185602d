"""Each form of a convolution that `jaxft.ops` chooses on the CPU against XLA's own, interleaved in one process.

    python benchmarks/conv_forms.py [--rounds=5] [--output=benchmarks/results/conv_forms.json]

Times the forward pass, the gradient for the input and the gradient for the kernel of the networks' convolutions, f32. Printed
are GFLOP/s of the convolution's own arithmetic (a form that saves multiplications may exceed the peak) and how many times
faster the form is, as the median over rounds.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jaxft import ops
from jaxft.bench import machine
from jaxft.heap import keep_heap
from jaxft.ops.conv import form_of
from jaxft.ops.geometry import Geometry, pair

#: (name, batch, side, channels in, channels out, kernel, options)
CASES: list[tuple[str, int, int, int, int, int, dict[str, int]]] = [
    ("VGG 224 px, block 1", 8, 224, 64, 64, 3, {"padding": 1}),
    ("VGG 224 px, block 2", 8, 112, 128, 128, 3, {"padding": 1}),
    ("VGG 224 px, block 3", 8, 56, 256, 256, 3, {"padding": 1}),
    ("VGG 224 px, block 4", 8, 28, 512, 512, 3, {"padding": 1}),
    ("VGG 224 px, block 5", 8, 14, 512, 512, 3, {"padding": 1}),
    ("VGG 32 px, block 1", 64, 32, 64, 64, 3, {"padding": 1}),
    ("VGG 32 px, block 2", 64, 16, 128, 128, 3, {"padding": 1}),
    ("VGG 32 px, block 3", 64, 8, 256, 256, 3, {"padding": 1}),
    ("VGG 32 px, block 5", 64, 2, 512, 512, 3, {"padding": 1}),
    ("ResNet, stage 1", 8, 56, 64, 64, 3, {"padding": 1}),
    ("ResNet, stage 2", 8, 28, 128, 128, 3, {"padding": 1}),
    ("ResNet, stage 3", 8, 14, 256, 256, 3, {"padding": 1}),
    ("ResNet, stage 4", 8, 7, 512, 512, 3, {"padding": 1}),
    ("ResNet, 1x1, stage 2", 8, 28, 512, 128, 1, {}),
    ("EfficientNet, depthwise 5x5", 8, 28, 240, 240, 5, {"padding": 2, "groups": 240}),
    ("ResNeXt, 32 groups", 8, 14, 512, 512, 3, {"padding": 1, "groups": 32}),
]


def measure(name: str, batch: int, side: int, inner: int, outer: int, span: int, options: dict[str, Any], rounds: int) -> Any:
    x = jax.random.normal(jax.random.key(0), (batch, side, side, inner))
    kernel = jax.random.normal(jax.random.key(1), (span, span, inner // options.get("groups", 1), outer))
    padding = options.get("padding", 0)
    form = form_of(x, kernel, Geometry(pads=(pair(padding), pair(padding)), groups=options.get("groups", 1)))
    grad = jax.random.normal(jax.random.key(2), (batch, side, side, outer))
    gflop = 2 * grad.size * kernel[..., 0].size / 1e9
    row: dict[str, Any] = {"name": name, "x": list(x.shape), "kernel": list(kernel.shape), "form": form}
    for part in ("forward", "input_gradient", "kernel_gradient"):
        sides = [_jitted(part, lowering, options) for lowering in ("xla", "auto")]
        times: list[list[float]] = [[], []]
        for turn in range(rounds + 1):
            for spent, function in zip(times, sides, strict=True):
                start = time.perf_counter()
                jax.block_until_ready(function(x, kernel, grad))
                if turn:  # the first call compiles
                    spent.append(time.perf_counter() - start)
        xla, own = (gflop / statistics.median(spent) for spent in times)
        faster = statistics.median(a / b for a, b in zip(*times, strict=True))
        row[part] = {"xla_gflops": round(xla, 1), "gflops": round(own, 1), "times_faster": round(faster, 2)}
    return row


def _jitted(part: str, lowering: str, options: dict[str, Any]) -> Callable[..., jax.Array]:
    convolve = functools.partial(ops.conv, lowering=lowering, **options)

    def run(x: jax.Array, kernel: jax.Array, grad: jax.Array) -> jax.Array:
        if part == "forward":
            return convolve(x, kernel)
        if part == "input_gradient":
            return jax.vjp(lambda x: convolve(x, kernel), x)[1](grad)[0]
        return jax.vjp(lambda kernel: convolve(x, kernel), kernel)[1](grad)[0]

    return jax.jit(run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "conv_forms.json")
    options = parser.parse_args()
    keep_heap()
    rows = []
    print(f"{'':30}{'form':26}{'forward':>20}{'input gradient':>20}{'kernel gradient':>20}   GFLOP/s of XLA, own, times faster")
    for case in CASES:
        row = measure(*case, options.rounds)
        rows.append(row)
        cells = [row[part] for part in ("forward", "input_gradient", "kernel_gradient")]
        text = "".join(f"{c['xla_gflops']:7.0f}{c['gflops']:6.0f}{c['times_faster']:7.1f}" for c in cells)
        print(f"{row['name']:30}{row['form'] or 'xla':26}{text}", flush=True)
    made = {"machine": machine(), "date": datetime.date.today().isoformat(), "rounds": options.rounds, "rows": rows}
    options.output.write_text(json.dumps(made, indent=2) + "\n")


if __name__ == "__main__":
    main()
