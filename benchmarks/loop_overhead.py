"""What the loop of `jaxft.run.train` costs over the bare compiled step.

    python benchmarks/loop_overhead.py [--json benchmarks/results/loop_overhead.json]

Within one run, windows of steps in turn: the loop's own (everything it does: pulling, placing, dispatching, collecting figures,
at least one log line), then as many of the same compiled step on the same batches, which lie on the device already. Both
begin and end with an idle device. The cost is loop / bare - 1: of the fastest window of each side, which a loaded machine
disturbs least, and as the median over pairs of windows with its quartiles. `ahead` takes batches
from memory, `decoded` from the real input pipeline, whose threads share the processor with the step. Data: the 28-pixel digits
of the quickstart; weights are random.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import itertools
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxft import run
from jaxft.config import default_config, phase
from jaxft.parallel import make_mesh, put_batch

BATCHES = 4  # different ones in a window, over and over


@dataclasses.dataclass(frozen=True)
class Case:
    """A network, what of it is trained, and the steps of one window."""

    name: str
    train: str
    size: int
    batch_size: int
    steps: int


CASES = (
    Case("vgg16", "head", 32, 64, 10),
    Case("efficientnet_lite0", "full", 64, 64, 10),
    Case("efficientnet_lite0", "head", 64, 64, 20),
    Case("efficientnet_lite0", "head", 32, 4, 200),
)


class Measured(Exception):
    """Enough windows: the run is left here."""


class Meter:
    """Stands between the loop and its batches and compiled step, and times both sides."""

    def __init__(self, case: Case, windows: int, *, decode: bool):
        self._case, self._windows, self._decode = case, windows, decode
        self._checked, self._phase_input = run.checked, run.phase_input
        self._step: Any = None
        self._spare: Any = None  # a state of our own for the bare steps; the loop's is donated
        self._last: Any = None
        self.loop: list[float] = []
        self.bare: list[float] = []

    def checked(self, step: Any, *arguments: Any, **more: Any) -> Any:
        """`checked`, remembering the compiled step and its last result."""
        self._step, checked_step = step, self._checked(step, *arguments, **more)

        def call(state: Any, batch: Any) -> Any:
            if self._spare is None:
                self._spare = jax.tree.map(jnp.copy, state)
            self._last = checked_step(state, batch)
            return self._last

        return call

    def phase_input(self, *arguments: Any, **more: Any) -> Any:
        """`phase_input`, its training batches replaced by `_batches`."""
        given = self._phase_input(*arguments, **more)
        return dataclasses.replace(given, batches=lambda step: self._batches(given.batches(step)))

    def _batches(self, with_decoding: Generator[Any, None, None]) -> Generator[Any, None, None]:
        """The training's batches; between two windows of the loop it runs the bare steps."""
        held = [next(with_decoding) for _ in range(BATCHES)]
        placed = [put_batch(batch, make_mesh()) for batch in held]
        source = with_decoding if self._decode else itertools.cycle(held)
        yield next(source)  # compiles
        yield next(source)
        for _ in range(self._windows):
            jax.block_until_ready((self._last, self._spare))
            self.bare.append(self._bare(placed))
            start = time.perf_counter()
            yield from itertools.islice(source, self._case.steps)
            jax.block_until_ready(self._last)
            self.loop.append((time.perf_counter() - start) / self._case.steps)
        with_decoding.close()
        raise Measured

    def _bare(self, placed: list[Any]) -> float:
        start = time.perf_counter()
        for batch in itertools.islice(itertools.cycle(placed), self._case.steps):
            self._spare, metrics = self._step(self._spare, batch)
        jax.block_until_ready((self._spare, metrics))
        return (time.perf_counter() - start) / self._case.steps


def make_config(case: Case) -> ConfigDict:
    config = default_config()
    config.data.source = "tfds:jaxft_digits"
    config.model.name, config.model.size, config.model.pretrained = case.name, case.size, ""
    config.input.batch_size, config.input.augment = case.batch_size, "light"
    config.train.log_every, config.train.eval_every = f"{min(case.steps, 20)} steps", "1000 epochs"
    config.log.tensorboard = False
    config.phases = ConfigDict({"phase1": phase(train=case.train, length="1000 epochs", lr=1e-4)})
    return config


def measure(case: Case, windows: int, *, decode: bool) -> dict[str, Any]:
    """Times `windows` pairs of windows; gives the fastest of each side, and the cost in percent."""
    meter, held = Meter(case, windows, decode=decode), (run.checked, run.phase_input)
    run.checked, run.phase_input = meter.checked, meter.phase_input
    try:
        with tempfile.TemporaryDirectory() as folder:
            run.train(make_config(case), Path(folder) / "run")
    except Measured:
        pass
    finally:
        run.checked, run.phase_input = held
    cost = [100 * (loop / bare - 1) for loop, bare in zip(meter.loop, meter.bare, strict=True)]
    lower, middle, upper = statistics.quantiles(cost, n=4)
    return {
        **dataclasses.asdict(case),
        "data": "decoded" if decode else "ahead",
        "windows": windows,
        "bare_ms": 1e3 * min(meter.bare),
        "loop_ms": 1e3 * min(meter.loop),
        "overhead_percent": 100 * (min(meter.loop) / min(meter.bare) - 1),
        "median_percent": middle,
        "quartiles": [lower, upper],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--windows", type=int, default=12)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    rows = [measure(case, options.windows, decode=decode) for case in CASES for decode in (False, True)]
    for row in rows:
        lower, upper = row["quartiles"]
        print(
            f"{row['name']} {row['train']} {row['size']} px, batch {row['batch_size']}, {row['data']}: bare "
            f"{row['bare_ms']:.2f} ms, loop {row['loop_ms']:.2f} ms, {row['overhead_percent']:+.2f} % "
            f"(median of pairs {row['median_percent']:+.2f}, quartiles {lower:+.2f} to {upper:+.2f})"
        )
    if options.json:
        machine = {"processor": platform.machine(), "cores": os.cpu_count(), "jax": jax.__version__}
        date = datetime.date.today().isoformat()
        options.json.write_text(json.dumps({"date": date, "machine": machine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
