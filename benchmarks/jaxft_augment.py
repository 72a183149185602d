"""jaxft's side of `augment_speed.py`: a list of augmentations as the training step applies it. See `serve.py` for the protocol.

A work is {"operation", "list", "batch", "size"}; the list "" is a random resized crop on the device.
"""

from __future__ import annotations

import functools
import importlib.metadata
import time
from typing import Any

import jax
import numpy as np
from serve import Prepared, serve, timed, warmed

from jaxft.augment import example_keys, parse, random_resized_crop
from jaxft.heap import keep_heap
from jaxft.typing import Batch

CLASSES = 1000


def prepare(work: dict[str, Any]) -> Prepared:
    size, count = work["size"], work["batch"]
    rng = np.random.default_rng(0)
    batch = jax.device_put(
        {
            "image": rng.integers(0, 256, (count, size, size, 3), np.uint8),
            "label": rng.integers(0, CLASSES, count, np.int32),
            "shown": np.zeros(count, np.int32),
            "index": np.arange(count, dtype=np.int32),
        }
    )
    started = time.perf_counter()
    look = jax.jit(_look(work["list"], size))
    return warmed(timed(lambda: jax.block_until_ready(look(batch))), count, None, started)


def _look(text: str, size: int) -> Any:
    """What is traced: of a batch the pictures alone, or pictures and labels where examples are mixed."""
    if not text:
        return functools.partial(_cropped, size=size)
    recipe = parse(text)
    if recipe.mixes_examples:
        return lambda batch: {
            name: found
            for name, found in recipe.batch(batch, seed=0, size=size, classes=CLASSES).items()
            if name in ("image", "label")
        }
    return functools.partial(recipe.images, seed=0, size=size)


def _cropped(batch: Batch, *, size: int) -> jax.Array:
    keys = example_keys(0, batch["shown"], batch["index"])
    return jax.vmap(lambda key, image: random_resized_crop(key, image, size))(keys, batch["image"])


def versions() -> dict[str, str]:
    return {"jaxft": importlib.metadata.version("jaxft"), "jax": jax.__version__}


if __name__ == "__main__":
    keep_heap()  # as a run does, before JAX starts
    serve(prepare, versions=versions)
