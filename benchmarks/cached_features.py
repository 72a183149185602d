"""Head-only epochs on kept features against epochs that compute them again, interleaved in one process.

    python benchmarks/cached_features.py [--output=benchmarks/results/cached_features.json]

An epoch is what a run makes of it: batches, transfer, the compiled training step, in the order of `jaxft.data.order`. Pictures
are random pixels in memory (their decoding, which features save too, is not counted), augmented by `pad_flip` (32 pixels) or
`light`. Timed are steps of one epoch, or `--steps` of them where the epoch is long; each round times both sides, and the median
of the rounds counts.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import functools
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxft import models
from jaxft.augment import parse
from jaxft.data import Arrays, train_batches
from jaxft.features import Rows, feature_batches, fill, frozen_prefix, views_of
from jaxft.losses import softmax_cross_entropy
from jaxft.metrics import classification_metrics, training_metrics
from jaxft.optim import make_optimizer
from jaxft.parallel import make_mesh, put_batch, replicate
from jaxft.preprocessing import on_pixels
from jaxft.train import create_state, make_train_step
from jaxft.tuning import FreezeSpec, make_mask

#: network, pixels, batch, examples, augmentation, picture side in the source
CASES = [("vgg16", 32, 64, 640, "pad_flip", 32), ("efficientnet_lite0", 224, 64, 256, "light", 256)]


def measure(
    name: str, size: int, batch: int, examples: int, augment: str, side: int, steps: int, rounds: int
) -> dict[str, Any]:
    mesh = make_mesh()
    model = models.build(name, 10, size=size)
    params, model_state = jax.jit(model.init)(jax.random.key(0))
    mask = make_mask(FreezeSpec.parse("head"), params, model.stages)
    tx, _ = make_optimizer(params, mask, name="adamw", lr=1e-3, total_steps=1000)
    metrics = training_metrics(classification_metrics(10))
    prefix = frozen_prefix(model, mask, params, model_state)
    assert prefix is not None
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (examples, side, side, 3), np.uint8)
    source = Arrays(pixels, rng.integers(0, 10, examples).astype(np.int32), [str(number) for number in range(examples)])
    recipe = parse(augment)
    views = views_of(recipe, at_most=1, first_epoch=0, last_epoch=0)

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        rows = Rows(
            Path(folder), "train", {}, shape=(views.count * examples, *prefix.shape), dtype="float32", block=batch
        )  # fmt: skip
        run_prefix = prefix.run(rows.dtype)
        look = functools.partial(recipe.images, seed=0, size=size)
        jitted = jax.jit(lambda params, model_state, batch: run_prefix(params, model_state, look(batch)))
        compute = lambda batch: jitted(params, model_state, batch)
        read = recipe.window.side(size)
        blank = {
            "image": np.zeros((batch, read, read, 3), np.uint8),
            **dict.fromkeys(("shown", "index"), np.zeros(batch, np.int32)),
        }
        compute(put_batch(blank, mesh)).block_until_ready()  # compiled before it is timed
        start = time.perf_counter()
        fill(rows, compute, source, views, model=model, seed=0, mesh=mesh, say=lambda line: None, stop=lambda: False)
        filled = time.perf_counter() - start

        sides = {}
        prepare = functools.partial(recipe.batch, seed=0, size=size, classes=10)
        on_pictures = on_pixels(model.apply, model.preprocessing)
        for kind, apply, more in (("recomputed", on_pictures, prepare), ("cached", prefix.rest, None)):
            train_step = make_train_step(apply, softmax_cross_entropy, tx, mask, metrics=metrics, augment=more)
            step = jax.jit(train_step, donate_argnums=0)
            state = create_state(params, model_state, tx, mask, rng=jax.random.key(0))
            state = replicate(jax.tree.map(jnp.copy, state), mesh)  # it is donated
            if kind == "cached":
                batches = feature_batches(rows.read(), source, views, batch_size=batch, seed=0)
            else:
                batches = train_batches(source, model.preprocessing, batch_size=batch, seed=0, augment=augment)
            sides[kind] = [step, state, stack.enter_context(contextlib.closing(batches))]

        def run(kind: str, count: int) -> float:
            """Seconds a step."""
            step, state, batches = sides[kind]
            start = time.perf_counter()
            for _ in range(count):
                state, found = step(state, put_batch(next(batches), mesh))
            jax.block_until_ready((state, found))
            sides[kind][1] = state
            return (time.perf_counter() - start) / count

        for kind in sides:
            run(kind, 2)
        times: dict[str, list[float]] = {kind: [] for kind in sides}
        for _ in range(rounds):
            times["recomputed"].append(run("recomputed", steps))
            times["cached"].append(run("cached", 20 * steps))
        bytes_kept = rows.nbytes

    per_step = {kind: statistics.median(found) for kind, found in times.items()}
    return {
        "network": name, "pixels": size, "batch": batch, "examples": examples, "augment": augment,
        "ms_per_step": {kind: 1e3 * seconds for kind, seconds in per_step.items()},
        "ms_per_step_range": {kind: [1e3 * min(found), 1e3 * max(found)] for kind, found in times.items()},
        "ratio": per_step["recomputed"] / per_step["cached"],
        "fill_ms_per_batch": 1e3 * filled * batch / examples, "bytes": bytes_kept, "bytes_per_example": bytes_kept // examples,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3, help="recomputing steps a round; 20 times as many cached ones")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    results = []
    for case in CASES:
        found = measure(*case, steps=options.steps, rounds=options.rounds)
        results.append(found)
        once, cached = found["ms_per_step"]["recomputed"], found["ms_per_step"]["cached"]
        print(
            f"{found['network']} {found['pixels']} px, batch {found['batch']}: {once:.1f} ms a step recomputed, "
            f"{cached:.2f} ms cached, {found['ratio']:.0f} times faster; filling {found['fill_ms_per_batch']:.1f} ms a batch, "
            f"{found['bytes_per_example']:,} bytes an example",
            flush=True,
        )
    record = {
        "date": datetime.date.today().isoformat(), "machine": platform.machine(), "cpus": os.cpu_count(),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}", "python": platform.python_version(),
        "jax": jax.__version__, "steps": options.steps, "rounds": options.rounds, "results": results,
    }  # fmt: skip
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
