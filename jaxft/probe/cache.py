"""Tip-Adapter (Zhang et al., 2022): the labelled examples as a cache of keys and values, beside a classifier that was there."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxft.errors import JaxftError
from jaxft.parallel import make_mesh, replicate
from jaxft.probe.nearest import class_numbers, in_blocks, normalized


@dataclasses.dataclass(frozen=True)
class Cache:
    """Keys and their classes.

    Attributes:
      keys: [N, D] f32 of length 1; where they were trained, of any length.
      labels: [N] int32.
      classes: K.
    """

    keys: np.ndarray
    labels: np.ndarray
    classes: int

    def logits(self, queries: np.ndarray, betas: Sequence[float], *, mesh: Mesh | None = None) -> Iterator[np.ndarray]:
        """For each beta the logits [M, K] f32: the sum of exp(-beta * (1 - cosine)) over the keys of each class.

        Args:
          queries: features [M, D], of any length.
          betas: how sharply near keys count more than far ones; positive.
          mesh: whose devices share the queries; None is the first device.
        """
        mesh = mesh or make_mesh(devices=jax.devices()[:1])
        queries = normalized(queries)
        keys, values = replicate((self.keys, np.eye(self.classes, dtype=np.float32)[self.labels]), mesh)
        for beta in betas:
            if not beta > 0:
                raise JaxftError(f"beta is {beta}: it must be positive")
            compute = functools.partial(_cached, keys=keys, values=values, beta=jnp.float32(beta))
            blocks = in_blocks(compute, queries, kept=len(self.keys), mesh=mesh)
            yield np.concatenate(list(blocks))


@jax.jit
def _cached(x: jax.Array, *, keys: jax.Array, values: jax.Array, beta: jax.Array) -> jax.Array:
    return jnp.exp(-beta * (1 - x @ keys.T)) @ values


def make_cache(features: np.ndarray, labels: np.ndarray, classes: int) -> Cache:
    """The cache of labelled features [N, D], labels [N]: nothing is trained."""
    return Cache(normalized(features), class_numbers(features, labels, classes), classes)


def tune_keys(
    cache: Cache,
    features: np.ndarray,
    base: np.ndarray,
    *,
    alpha: float,
    beta: float,
    epochs: int = 20,
    batch_size: int = 256,
    lr: float = 1e-3,
    seed: int = 0,
) -> Cache:
    """Tip-Adapter-F: the keys are trained on the cross-entropy of base + alpha * cache, by AdamW with a cosine schedule.

    Rates, batch, epochs and AdamW's epsilon of 1e-4 are the authors'. They show another augmented look of each picture in each
    epoch. Here it is the one that its key is of, so an example does not see its own key: that alone would tell its class.

    Args:
      cache: where they begin.
      features: [N, D] of the examples that the cache was made of.
      base: logits [N, K] of the classifier that was there, for them.
      alpha, beta: see `Cache.logits`.
      epochs, batch_size, lr: of the training; a batch larger than N is all.
      seed: of the order.
    """
    count, size = len(features), min(batch_size, len(features))
    steps = epochs * -(-count // size)
    search = optax.adamw(optax.cosine_decay_schedule(lr, steps), eps=1e-4)
    x, target, given = jnp.asarray(normalized(features)), jnp.asarray(cache.labels), jnp.asarray(base, jnp.float32)
    values = jnp.asarray(np.eye(cache.classes, dtype=np.float32)[cache.labels])

    def loss(keys: jax.Array, rows: jax.Array) -> jax.Array:
        own = jnp.exp(-beta * (1 - (x[rows] * keys[rows]).sum(-1, keepdims=True))) * values[rows]
        logits = given[rows] + alpha * (_cached(x[rows], keys=keys, values=values, beta=beta) - own)
        return optax.softmax_cross_entropy_with_integer_labels(logits, target[rows]).mean()

    def step(carry: tuple[jax.Array, optax.OptState], rows: jax.Array) -> tuple[tuple[jax.Array, optax.OptState], jax.Array]:
        keys, state = carry
        value, gradient = jax.value_and_grad(loss)(keys, rows)
        updates, state = search.update(gradient, state, keys)
        return (optax.apply_updates(keys, updates), state), value

    # Positions of each epoch in an order of its own, the last batch filled up from the epoch's beginning.
    rng = np.random.default_rng(seed)
    rows = [np.resize(rng.permutation(count), -(-count // size) * size) for _ in range(epochs)]
    order = np.concatenate(rows).reshape(steps, size).astype(np.int32)
    keys = jnp.asarray(cache.keys)
    (keys, _), _ = jax.jit(lambda carry, rows: jax.lax.scan(step, carry, rows))((keys, search.init(keys)), order)
    return dataclasses.replace(cache, keys=np.asarray(keys))
