"""One piece of work to time: the library's own step, compiled, its state and its images on the devices."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxft import tree
from jaxft.augment import parse
from jaxft.bench.timing import OutOfMemory
from jaxft.data import Source, train_batches
from jaxft.errors import JaxftError
from jaxft.models import Model, build
from jaxft.ops import plain_ops
from jaxft.optim import make_optimizer
from jaxft.parallel import batch_sharding, check_batch_size, make_mesh, peak_bytes, put_batch, replicate, replicated
from jaxft.preprocessing import on_pixels
from jaxft.progress import Stopwatch
from jaxft.tasks import get_task
from jaxft.train import create_state, make_eval_step, make_train_step
from jaxft.tuning import FreezeSpec, make_mask
from jaxft.typing import Batch

EVAL = "eval"

#: `(carried, batch) -> (carried, results)`. For training the state is carried, for evaluation the weights.
Step = Callable[[Any, Any], tuple[Any, Any]]


@dataclasses.dataclass(frozen=True)
class Work:
    """Something to time: `run(calls)` makes that many calls and returns the seconds they took.

    Calls are made back to back, as a training loop makes them; `run` waits for the devices at its end only. The state is
    carried from call to call, and its memory is reused.

    Attributes:
      name: model, part, batch and devices in one line.
      model, part, batch, size, dtype, devices: what was asked; `batch` is over all devices, of which the pipeline uses none.
      run: number of calls -> seconds of wall time.
      flops: of one call's mathematics over all devices, whatever lowering runs; see `count_flops`. None where unknown.
      memory: bytes the compiled step needs on one device (arguments, results, temporaries); None where unknown.
      compile_seconds: of tracing and compiling the step.
      compile_from: "scratch", or "cache" where JAX's persistent compilation cache had it.
      wait_shares: filled by `run` of work that reads its data: the share (0..1) of its time that it waited for them.
    """

    name: str
    model: str
    part: str
    batch: int
    size: int
    run: Callable[[int], float]
    dtype: str = "uint8"
    devices: int = 0
    flops: float | None = None
    memory: int | None = None
    compile_seconds: float = 0.0
    compile_from: str = ""
    wait_shares: list[float] = dataclasses.field(default_factory=list)

    @property
    def images(self) -> int:
        """Of a call."""
        return self.batch


def make_work(
    model: str,
    part: str,
    *,
    batch: int,
    size: int | None = None,
    dtype: str = "float32",
    devices: int | None = None,
    num_classes: int = 10,
    optimizer: str = "sgd",
    accum_steps: int = 1,
    seed: int = 0,
    source: Source | None = None,
    augment: str = "none",
    processes: int = 0,
) -> Work:
    """Compiles a training or evaluation step and puts random weights and random uint8 images on the devices.

    Args:
      model: a name of `jaxft.list_models()`.
      part: "eval", "train" (everything), or what is trained: "head", "from:STAGE", stage names, globs (`FreezeSpec`).
      batch: images of a call, over all devices.
      size: pixels; None is the network's own.
      dtype: "float32" or "bfloat16": what is computed in.
      devices: how many of those present, the first ones; None is all.
      num_classes: width of the head.
      optimizer: a key of `jaxft.optim.methods.METHODS`.
      accum_steps: microbatches a call, of training.
      seed: of weights and images.
      source: training reads its images from here, as a run does, instead of finding them on the devices; classes from 0
        to `num_classes`.
      augment: what training does to the images first; see `jaxft.augment.parse`. A crop that stands first is `source`'s.
      processes: that decode what `source` gives, in the place of threads.

    Raises:
      JaxftError: whatever does not fit: no such network, stage or optimizer, a batch that does not split over the devices.
      OutOfMemory: the compiler or the device says so; so does `run`.
    """
    mesh = _mesh(devices)
    net = build(model, num_classes, size=size, dtype=dtype)
    _check_batch(part, batch, accum_steps, mesh, source)
    begin, step = _step(net, part, optimizer, accum_steps, _prepare(net, part, augment, seed))
    whole, split = replicated(mesh), batch_sharding(mesh)
    flops = count_flops(model, part, batch=batch, size=size, num_classes=num_classes, optimizer=optimizer)
    with _memory():
        carried = jax.jit(begin, out_shardings=whole)(*replicate(_draw(net.shapes, seed), mesh))
        images = jax.jit(functools.partial(_batch, net, batch, seed), out_shardings=split)()
        compiled, seconds, origin = _compile(jax.jit(step, donate_argnums=0), carried, images)
    wait_shares: list[float] = []
    if source is None:
        run = _on_device(compiled, carried, images)
    else:
        read = functools.partial(
            train_batches, source, net.preprocessing,
            batch_size=batch, channels=net.in_channels, seed=seed, augment=augment, processes=processes,
        )  # fmt: skip
        run = _reading(compiled, carried, read, mesh, batch, wait_shares)
    pixels, kind = net.preprocessing.size, jax.devices()[0].platform
    return Work(
        name=f"{model} {part} {pixels}px batch {batch} {dtype} on {mesh.size} x {kind}",
        model=model,
        part=part,
        batch=batch,
        size=pixels,
        run=run,
        dtype=dtype,
        devices=mesh.size,
        flops=flops,
        memory=peak_bytes(compiled),
        compile_seconds=seconds,
        compile_from=origin,
        wait_shares=wait_shares,
    )


def _on_device(compiled: Any, carried: Any, images: Any) -> Callable[[int], float]:
    """`Work.run` with the same images, already on the devices, in every call."""

    def run(calls: int) -> float:
        nonlocal carried
        with _memory():
            start, results = time.perf_counter(), None
            for _ in range(calls):
                carried, results = compiled(carried, images)
            jax.block_until_ready((carried, results))
            return time.perf_counter() - start

    return run


def _reading(
    compiled: Any, carried: Any, read: Callable[[], Any], mesh: Mesh, batch: int, wait_shares: list[float]
) -> Callable[[int], float]:
    """`Work.run` with the batches of `read()`, waited for and sent to the devices as `jaxft.run` does it."""

    def run(calls: int) -> float:
        nonlocal carried
        with _memory(), contextlib.closing(read()) as batches:
            next(batches)  # begun before the clock and ended after it, as if in the middle of a run
            watch, start, results = Stopwatch(batch), time.perf_counter(), None
            for _ in range(calls):
                with watch.waiting():
                    ready = put_batch(next(batches), mesh)
                carried, results = compiled(carried, ready)
                watch.step()
            jax.block_until_ready((carried, results))
            wait_shares.append(watch.read()["wait_share"])
            return time.perf_counter() - start

    return run


def count_flops(
    model: str,
    part: str,
    *,
    batch: int,
    size: int | None = None,
    num_classes: int = 10,
    optimizer: str = "sgd",
) -> float | None:
    """Floating-point operations of one call, a multiply-add being two, from shapes alone: nothing is compiled or run.

    XLA's count for the program before optimisation with every operation in its plain form (`JAXFT_OPS=xla`), so the same
    work counts the same whatever runs it: a lowering that does more arithmetic, or less, is not credited for it. Products
    with padding zeros are not counted: VGG-16 at 224 pixels is 30.0 GFLOP forward, where papers' 15.5 GMAC count them.

    Args: as `make_work`; neither the precision nor accumulation changes the count.

    Raises:
      JaxftError: as `make_work`.
    """
    net = build(model, num_classes, size=size)
    begin, step = _step(net, part, optimizer, 1, None)
    carried = jax.eval_shape(begin, *net.shapes)
    images = jax.eval_shape(functools.partial(_batch, net, batch, 0))
    with plain_ops():
        cost: Any = jax.jit(step).lower(carried, images).cost_analysis()
    found = (cost or {}).get("flops")
    return float(found) if found and found > 0 else None


def check_work(
    model: str,
    part: str,
    *,
    batch: int,
    size: int | None = None,
    dtype: str = "float32",
    devices: int | None = None,
    optimizer: str = "sgd",
    accum_steps: int = 1,
    augment: str = "none",
) -> None:
    """Raises what `make_work` would raise for its arguments, before anything is compiled."""
    _check_batch(part, batch, accum_steps, _mesh(devices), None)
    net = build(model, size=size, dtype=dtype)
    _step(net, part, optimizer, accum_steps, _prepare(net, part, augment, 0))


def _check_batch(part: str, batch: int, accum_steps: int, mesh: Mesh, source: Source | None) -> None:
    if accum_steps < 1 or batch % accum_steps:
        raise JaxftError(f"accum_steps is {accum_steps}: it must divide the batch, {batch}")
    if part == EVAL and accum_steps > 1:
        raise JaxftError(f"accum_steps is {accum_steps}: an evaluation accumulates nothing")
    if part == EVAL and source is not None:
        raise JaxftError("only training is timed together with reading its data")
    check_batch_size(batch // accum_steps, mesh, "batch / accum_steps" if accum_steps > 1 else "batch")


def _mesh(devices: int | None) -> Mesh:
    present = jax.devices()
    if devices is not None and not 1 <= devices <= len(present):
        more = " (JAX_NUM_CPU_DEVICES=N simulates N on a CPU)" if present[0].platform == "cpu" else ""
        raise JaxftError(f"devices is {devices}; there are {len(present)} of kind {present[0].device_kind}{more}")
    return make_mesh(devices=present[:devices])


@contextlib.contextmanager
def _memory() -> Iterator[None]:
    """Tells running out of memory, which a sweep survives, from what is wrong otherwise."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise OutOfMemory(f"out of memory: {str(error).splitlines()[0]}") from error


def _prepare(net: Model, part: str, augment: str, seed: int) -> Callable[[Batch], Batch] | None:
    """What training does to a batch first."""
    chosen = parse(augment)
    if part == EVAL or not chosen.operations:
        return None
    if chosen.window.margin:
        raise JaxftError("the images of a bench have the network's size: random_crop takes padding here, no margin")
    return functools.partial(chosen.batch, seed=seed, size=net.preprocessing.size, classes=net.num_classes)


def _step(
    net: Model, part: str, optimizer: str, accum_steps: int, augment: Callable[[Batch], Batch] | None
) -> tuple[Callable[..., Any], Step]:
    """What is carried at the beginning, as a function of the weights, and the step."""
    apply, task = on_pixels(net.apply, net.preprocessing), get_task("classify", net.num_classes)
    if part == EVAL:
        judge = make_eval_step(apply, task.loss, metrics=task.metrics)
        # Handing the donated weights back chains the calls: without it a backend may run several at once.
        return lambda params, model_state: (params, model_state), lambda held, batch: (held, judge(held[0], held[1], batch))
    params, _ = net.shapes
    mask = make_mask(FreezeSpec.parse("full" if part == "train" else part), params, net.stages)
    # A small rate: random images teach nothing, and nothing may overflow however long the timing takes.
    tx, _ = make_optimizer(params, mask, name=optimizer, lr=1e-4, schedule="constant", total_steps=1)
    step = make_train_step(apply, task.loss, tx, mask, metrics=task.train_metrics, accum_steps=accum_steps, augment=augment)
    return functools.partial(create_state, tx=tx, mask=mask, rng=jax.random.key(0)), step


def _draw(shapes: Any, seed: int) -> Any:
    """Weights of the usual scale, drawn by numpy: compiling a network's initialiser takes longer than timing its step."""
    rng = np.random.default_rng(seed)

    def leaf(path: str, shape: Any) -> np.ndarray:
        if len(shape.shape) > 1:
            deviation = np.sqrt(2 / np.prod(shape.shape[:-1]))  # He et al., 2015
            return (rng.standard_normal(shape.shape, np.float32) * deviation).astype(shape.dtype)
        return np.full(shape.shape, 0 if path.endswith(("bias", "mean")) else 1, shape.dtype)

    return tuple(tree.map_with_path(leaf, part) for part in shapes)


def _batch(net: Model, batch: int, seed: int) -> dict[str, jax.Array]:
    """What the pipeline yields: `image` uint8 [B, S, S, C], `label`, `index` and `shown` int32 [B], `mask` f32 [B]."""
    pixels, labels = jax.random.split(jax.random.key(seed))
    size = net.preprocessing.size
    return {
        "image": jax.random.bits(pixels, (batch, size, size, net.in_channels), jnp.uint8),
        "label": jax.random.randint(labels, (batch,), 0, net.num_classes),
        "mask": jnp.ones(batch, jnp.float32),
        "index": jnp.arange(batch, dtype=jnp.int32),
        "shown": jnp.zeros(batch, jnp.int32),
    }


def _compile(jitted: Any, *arguments: Any) -> tuple[Any, float, str]:
    """The compiled function, the seconds that took, and where it came from: "scratch" or "cache"."""
    hits = []

    def listen(event: str, **_: Any) -> None:
        if event == "/jax/compilation_cache/cache_hits":
            hits.append(event)

    jax.monitoring.register_event_listener(listen)
    try:
        start = time.perf_counter()
        compiled = jitted.lower(*arguments).compile()
        return compiled, time.perf_counter() - start, "cache" if hits else "scratch"
    finally:
        jax.monitoring.unregister_event_listener(listen)
