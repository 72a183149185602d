"""jaxft's side of every comparison: the library's own step, through `jaxft.bench`. See `serve.py` for the protocol.

A work is {"model", "part", "batch", "size", "classes"}; `part` is anything that `make_work` takes.
"""

from __future__ import annotations

import importlib.metadata
from typing import Any

import jax
from serve import Missing, Prepared, serve

import jaxft
from jaxft.bench import OutOfMemory, make_work, matmul_peak
from jaxft.errors import JaxftError
from jaxft.heap import keep_heap


def prepare(work: dict[str, Any]) -> Prepared:
    if work["model"] not in jaxft.list_models():
        raise Missing(f"no network is called '{work['model']}'")
    try:
        made = make_work(
            work["model"], work["part"], batch=work["batch"], size=work["size"], num_classes=work["classes"], optimizer="sgd"
        )
    except OutOfMemory:
        raise
    except JaxftError as error:
        raise Missing(str(error)) from error
    made.run(2)
    return Prepared(made.run, made.images, made.flops, made.compile_seconds)


def versions() -> dict[str, str]:
    return {"jaxft": importlib.metadata.version("jaxft"), "jax": jax.__version__, "flax": importlib.metadata.version("flax")}


if __name__ == "__main__":
    keep_heap()  # as a run does, before JAX starts
    serve(prepare, versions=versions, peak=lambda: matmul_peak("float32"))
