"""The side of plain Flax: `plain_flax.py` under a jitted optax step. See `serve.py` for the protocol.

Head-only training differentiates the head alone and runs the rest in evaluation mode: the fast way to write it.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable
from typing import Any

import jax
import optax
from jax_side import carrying, peak
from plain_flax import NETWORKS
from serve import Missing, Prepared, serve, warmed


def train_step(net: Any, head_only: bool) -> tuple[optax.GradientTransformation, Callable[..., Any]]:
    """SGD with momentum 0.9 on cross-entropy: (trained, frozen, statistics, optimizer state, batch, key) -> the first four."""
    tx = optax.sgd(1e-4, momentum=0.9)

    def step(trained: Any, frozen: Any, statistics: Any, opt_state: Any, image: Any, label: Any, key: Any) -> Any:
        def loss(trained: Any) -> Any:
            variables = {"params": {**frozen, **trained}, **statistics}
            if head_only:
                logits, new = net.apply(variables, image, False), statistics
            else:
                logits, new = net.apply(variables, image, True, rngs={"dropout": key}, mutable=list(statistics))
            return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean(), new

        grads, new = jax.grad(loss, has_aux=True)(trained)
        updates, opt_state = tx.update(grads, opt_state, trained)
        return optax.apply_updates(trained, updates), frozen, new, opt_state

    return tx, step


def prepare(work: dict[str, Any]) -> Prepared:
    if work["model"] not in NETWORKS:
        raise Missing(f"plain_flax.py has no '{work['model']}'")
    net: Any = NETWORKS[work["model"]](work["classes"])
    shape = (work["batch"], work["size"], work["size"], 3)
    image = jax.random.normal(jax.random.key(0), shape)
    label = jax.random.randint(jax.random.key(1), shape[:1], 0, work["classes"])
    variables = dict(jax.jit(lambda key: net.init(key, image[:1], False))(jax.random.key(2)))
    if work["part"] == "eval":
        forward = jax.jit(lambda variables: net.apply(variables, image, False))
        run = carrying(lambda variables: (variables, forward(variables)), variables)
    elif work["part"] in ("train", "head"):
        run = carrying(*_training(net, variables, image, label, work["part"] == "head"))
    else:
        raise Missing(f"the side of plain Flax has no part '{work['part']}'")
    return warmed(run, work["batch"], None, time.perf_counter())


def _training(net: Any, variables: dict[str, Any], image: jax.Array, label: jax.Array, head_only: bool) -> tuple[Any, Any]:
    """The step, and what is carried at its beginning."""
    params = variables["params"]
    statistics = {name: found for name, found in variables.items() if name != "params"}
    trained = {"head": params["head"]} if head_only else params
    frozen = {name: leaf for name, leaf in params.items() if name not in trained}
    tx, step = train_step(net, head_only)
    jitted = jax.jit(step, donate_argnums=(0, 1, 2, 3))

    def call(carried: Any) -> tuple[Any, None]:
        return jitted(*carried, image, label, jax.random.key(3)), None

    return call, (trained, frozen, statistics, tx.init(trained))


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("flax", "jax", "optax")}


if __name__ == "__main__":
    serve(prepare, versions=versions, peak=peak)
