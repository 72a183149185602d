"""jaxft against other JAX code for the same networks: plain Flax, and Keras on JAX. Measured in alternation.

    python benchmarks/vs_jax.py --keras-python=/path/to/keras/environment/bin/python

Runs in jaxft's environment; the one of Keras needs keras and jax. Without --keras-python the rival is plain Flax alone. See
docs/benchmarks.md.
"""

from __future__ import annotations

import sys

from compare import Commands, arguments, compare, run
from workloads import Workload

WORKLOADS = tuple(
    Workload(*row)
    for row in (
        ("vgg16", 32, 64, 10, "Keras's VGG-16 has a 512 x 4,096 matrix where the others have 25,088 x 4,096, and no dropout"),
        ("vgg16", 224, 8),
        ("resnet50", 224, 8, 1000, "Keras's ResNet-50 strides in the 1x1 convolution: a little less work than the others'"),
        ("efficientnet_lite0", 224, 8, 1000, "Keras has no Lite network: it is written with Keras's layers"),
    )
)


def main() -> int:
    parser = arguments("jaxft against plain Flax and Keras on JAX.", WORKLOADS, "vs_jax.json")
    parser.add_argument("--keras-python", help="the Python of an environment with keras and jax")
    options = parser.parse_args()
    sides: Commands = {"jaxft": (sys.executable, "jaxft_worker.py"), "flax": (sys.executable, "flax_worker.py")}
    if options.keras_python:
        sides["keras"] = (options.keras_python, "keras_worker.py")
    return compare(options, WORKLOADS, lambda workload: sides, lambda side, part: ["default"], {})


if __name__ == "__main__":
    run(main)
