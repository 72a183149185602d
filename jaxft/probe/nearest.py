"""What the nearest examples, or the nearest class, say of a picture: no weights are trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxft.errors import JaxftError
from jaxft.parallel import batch_parts, make_mesh, put_batch, replicate

#: Similarities of queries with kept examples that are in memory at once.
_AT_ONCE = 1 << 24
#: The temperature of DINO's neighbours (Caron et al., 2021).
TEMPERATURE = 0.07


def normalized(x: np.ndarray) -> np.ndarray:
    """Rows [N, D] of length 1, f32; a row of zeros stays one."""
    x = np.asarray(x, np.float32)
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / np.where(length > 0, length, 1)


def in_blocks(compute: Callable[[jax.Array], Any], queries: np.ndarray, *, kept: int, mesh: Mesh) -> Iterator[Any]:
    """`compute` on queries [N, D] a block of rows [B, D] at a time, split over the devices, without what fills the last block.

    Args:
      compute: jitted; gives a tree of arrays [B, ...].
      queries: rows.
      kept: how many numbers a query makes: with blocks memory is bounded.
      mesh: whose devices share a block.
    """
    parts = batch_parts(mesh)
    size = min(max(1, _AT_ONCE // max(kept, 1)), len(queries))
    size = -(-size // parts) * parts
    for start in range(0, len(queries), size):
        rows = queries[start : start + size]
        block = np.pad(np.asarray(rows, np.float32), ((0, size - len(rows)), (0, 0)))
        found = compute(put_batch({"x": block}, mesh)["x"])
        yield jax.tree.map(lambda leaf, rows=rows: np.asarray(leaf)[: len(rows)], found)


def knn_scores(
    bank: np.ndarray,
    labels: np.ndarray,
    queries: np.ndarray,
    neighbors: Sequence[int],
    *,
    classes: int,
    temperature: float = TEMPERATURE,
    mesh: Mesh | None = None,
) -> dict[int, np.ndarray]:
    """The votes of the k nearest examples for each class, as DINO counts them (Caron et al., 2021, section 4.1).

    Near is what has a large cosine similarity s; each of the k votes for its class with exp(s / temperature). Equally near ones
    come in their order in the bank.

    Args:
      bank: features [N, D] of the examples that vote.
      labels: [N] class numbers of them.
      queries: features [M, D].
      neighbors: the values of k; at most N.
      classes: K.
      temperature: small: only the nearest count; large: all k count alike.
      mesh: whose devices share the queries; None is the first device. The bank is whole on each.

    Returns:
      k -> shares of the votes [M, K] f32, which sum to 1.

    Raises:
      JaxftError: a k outside 1 to N, a temperature that is not positive, shapes that do not fit.
    """
    labels = class_numbers(bank, labels, classes)
    if not neighbors or min(neighbors) < 1 or max(neighbors) > len(bank):
        raise JaxftError(f"k is {list(neighbors)}: each must lie between 1 and the {len(bank)} examples there are")
    if not temperature > 0:
        raise JaxftError(f"the temperature is {temperature}: it must be positive")
    mesh = mesh or make_mesh(devices=jax.devices()[:1])
    kept, numbers = replicate((normalized(bank), labels), mesh)
    most = max(neighbors)

    @jax.jit
    def votes(x: jax.Array) -> list[jax.Array]:
        near, which = jax.lax.top_k(x @ kept.T, most)
        weight = jnp.exp((near - near[:, :1]) / temperature)  # over the largest: shares are the same, nothing overflows
        found = []
        for k in neighbors:
            of_class = jax.nn.one_hot(numbers[which[:, :k]], classes, dtype=weight.dtype)
            total = jnp.einsum("bk,bkc->bc", weight[:, :k], of_class)
            found.append(total / total.sum(-1, keepdims=True))
        return found

    # Beside similarities there are one-hot classes of k neighbours a query.
    blocks = list(in_blocks(votes, normalized(queries), kept=len(bank) + most * classes, mesh=mesh))
    joined = [np.concatenate(parts) for parts in zip(*blocks, strict=True)]
    return dict(zip(neighbors, joined, strict=True))


def class_numbers(features: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Labels [N] int32 of features [N, D].

    Raises:
      JaxftError: others.
    """
    labels = np.asarray(labels)
    if labels.shape != (len(features),) or labels.dtype.kind not in "iu":
        raise JaxftError(f"labels are {labels.dtype} {list(labels.shape)}, not class numbers [{len(features)}]")
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise JaxftError(f"labels go from {labels.min()} to {labels.max()}, of {classes} classes")
    return labels.astype(np.int32)


def prototypes(features: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """The mean of each class's features (Snell et al., 2017): [K, D] f64; NaN for a class without examples."""
    labels = class_numbers(features, labels, classes)
    sums = np.zeros((classes, np.shape(features)[1]))
    np.add.at(sums, labels, np.asarray(features, np.float64))
    counts = np.bincount(labels, minlength=classes)[:, None]
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


METRICS = ("euclidean", "cosine")


def prototype_logits(means: np.ndarray, queries: np.ndarray, metric: str = "euclidean", *, scale: float = 1.0) -> np.ndarray:
    """How near each class's mean is: [M, K] f64, -inf for a class whose mean is NaN.

    Args:
      means: [K, D] of `prototypes`; for "cosine" best of features of length 1.
      queries: [M, D].
      metric: "euclidean", minus the squared distance; or "cosine", the cosine similarity.
      scale: what it is multiplied by.

    Raises:
      JaxftError: another metric.
    """
    if metric not in METRICS:
        raise JaxftError(f"the metric is '{metric}', not {' or '.join(map(repr, METRICS))}")
    there = ~np.isnan(means).any(-1)
    queries = np.asarray(queries, np.float64)
    found = np.full((len(queries), len(means)), -np.inf)
    if metric == "cosine":
        length = np.linalg.norm(queries, axis=-1, keepdims=True)
        unit = means[there] / np.linalg.norm(means[there], axis=-1, keepdims=True)
        found[:, there] = scale * (queries / np.where(length > 0, length, 1)) @ unit.T
    else:
        squares = (queries**2).sum(-1, keepdims=True) + (means[there] ** 2).sum(-1)
        found[:, there] = -scale * (squares - 2 * queries @ means[there].T)
    return found
