"""Logistic regression on features by L-BFGS (Liu & Nocedal, 1989), with scikit-learn's objective, on any number of devices."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxft.errors import JaxftError
from jaxft.parallel import batch_parts, make_mesh, put_batch, replicate

#: Pairs of steps and gradients that L-BFGS remembers: as in SciPy, scikit-learn and torch.
_MEMORY = 10
#: Largest entry of the gradient, of the objective divided by C times the number of examples, at which the search ends: float64
#: and float32. scikit-learn's default is 1e-4.
_TOLERANCE = {"float64": 1e-8, "float32": 1e-5}


@dataclasses.dataclass(frozen=True)
class Linear:
    """A linear map of features, f64 on the host.

    Attributes:
      kernel: [D, K].
      bias: [K].
      steps: of the search that found it.
      converged: whether that ended before it had made all the steps it may.
    """

    kernel: np.ndarray
    bias: np.ndarray
    steps: int = 0
    converged: bool = True

    def logits(self, features: np.ndarray) -> np.ndarray:
        """[N, K] f64 of features [N, D]."""
        return np.asarray(features, np.float64) @ self.kernel + self.bias


@dataclasses.dataclass(frozen=True)
class Scaling:
    """What makes the mean of each feature 0 and its standard deviation 1: (x - mean) / std. A constant feature has std 1."""

    mean: np.ndarray
    std: np.ndarray

    def folded(self, linear: Linear) -> Linear:
        """The map of features as they are that equals `linear` of scaled ones."""
        kernel = linear.kernel / self.std[:, None]
        return dataclasses.replace(linear, kernel=kernel, bias=linear.bias - self.mean @ kernel)

    def unfolded(self, linear: Linear) -> Linear:
        """The inverse of `folded`."""
        return dataclasses.replace(
            linear, kernel=linear.kernel * self.std[:, None], bias=linear.bias + self.mean @ linear.kernel
        )


def scaling(features: np.ndarray, *, block: int = 4096) -> Scaling:
    """The scaling of features [N, D], as scikit-learn's StandardScaler: sums in f64, a block of rows at a time."""
    rows = [features[start : start + block] for start in range(0, len(features), block)]
    mean = sum(np.asarray(part, np.float64).sum(0) for part in rows) / len(features)
    variance = sum(((np.asarray(part, np.float64) - mean) ** 2).sum(0) for part in rows) / len(features)
    # What differs by rounding alone is constant: scaled up it would be noise.
    constant = np.sqrt(variance) <= 10 * np.finfo(np.float32).eps * np.abs(mean)
    return Scaling(mean, np.where(constant, 1.0, np.sqrt(variance)))


def no_scaling(width: int) -> Scaling:
    """Features of that width as they are."""
    return Scaling(np.zeros(width), np.ones(width))


def logistic_regression(
    features: np.ndarray, labels: np.ndarray, *, C: float = 1.0, classes: int | None = None, **options: Any
) -> Linear:
    """The minimum for one C; see `logistic_path`."""
    (_, found) = next(logistic_path(features, labels, [C], classes=classes, **options))
    return found


def logistic_path(
    features: np.ndarray,
    labels: np.ndarray,
    strengths: Iterable[float],
    *,
    classes: int | None = None,
    multilabel: bool = False,
    standardize: bool = False,
    start: Linear | None = None,
    max_steps: int = 1000,
    tolerance: float | None = None,
    dtype: str = "float64",
    mesh: Mesh | None = None,
) -> Iterator[tuple[float, Linear]]:
    """Logistic regressions along a path of C, each begun where the one before ended.

    Minimised is what scikit-learn's LogisticRegression minimises, C * sum of losses + 0.5 * ||W||^2, the bias free: the
    softmax cross-entropy of K classes; of two classes the binary one of a single vector, which stands in the kernel halved, as
    its two columns [-w / 2, w / 2]; of several labels one binary problem a label (scikit-learn's OneVsRestClassifier).

    Args:
      features: [N, D].
      labels: [N] integers; [N, K] shares that sum to 1 (soft labels); with `multilabel` [N, K] of 0 and 1.
      strengths: the values of C; ascending, so that each problem begins near its solution.
      classes: K, where labels are integers; None is the largest of them and one.
      multilabel: K problems of two classes.
      standardize: solve it for features of mean 0 and standard deviation 1; what is given back takes features as they are.
      start: where the first search begins; None is zero.
      max_steps: of each search.
      tolerance: largest entry of the gradient of the objective divided by (C * N) at which a search ends; None is 1e-8, in
        float32 1e-5.
      dtype: what is computed in, "float64" or "float32". In float32 probabilities differ from the minimum's by up to 5e-3, and
        with a large C no step is better in the digits there are: such a search makes all its steps, and is not converged.
      mesh: whose devices share the examples; None is the first device.

    Yields:
      (C, `Linear`), in the order of `strengths`.

    Raises:
      JaxftError: shapes that do not fit, one class alone, a C that is not positive, another dtype.
    """
    labels = np.asarray(labels)
    width, outputs = _checked(features, labels, classes, multilabel, dtype)
    binary = outputs == 2 and not multilabel
    target = _targets(labels, outputs, binary)
    scale = scaling(features) if standardize else no_scaling(width)
    weights = np.zeros((width + 1, target.shape[1] if binary or multilabel else outputs))
    if start is not None:
        weights = _stacked(scale.unfolded(start), binary)
    least = _TOLERANCE[dtype] if tolerance is None else tolerance
    mesh = mesh or make_mesh(devices=jax.devices()[:1])
    with _precision(dtype):
        examples = _placed(features, target, scale, dtype, mesh)
    for C in strengths:
        if not C > 0:
            raise JaxftError(f"C is {C}: it must be positive")
        with _precision(dtype):
            known = tuple(np.asarray(value, dtype) for value in (weights, C * len(features), least))
            begin, strength, end = replicate(known, mesh)
            found, steps, worst = _minimum(begin, examples, strength, end, max_steps, sigmoid=binary or multilabel)
            weights = np.asarray(found, np.float64)
            converged = float(worst) <= float(end)
        yield C, scale.folded(_unstacked(weights, binary, int(steps), converged))


def _checked(features: np.ndarray, labels: np.ndarray, classes: int | None, multilabel: bool, dtype: str) -> tuple[int, int]:
    """(D, K)."""
    if dtype not in _TOLERANCE:
        raise JaxftError(f"dtype is '{dtype}', not 'float64' or 'float32'")
    if np.ndim(features) != 2 or not len(features):
        raise JaxftError(f"features are {list(np.shape(features))}, not [N, D] with an example at least")
    if labels.shape[:1] != np.shape(features)[:1] or labels.ndim != (2 if multilabel else labels.ndim) or labels.ndim > 2:
        wanted = "[N, K]" if multilabel else "[N] or [N, K]"
        raise JaxftError(f"labels are {list(labels.shape)} for {len(features)} examples, not {wanted}")
    if labels.ndim == 2:
        return int(np.shape(features)[1]), int(labels.shape[1])
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        raise JaxftError(f"labels [N] are class numbers from 0, not {labels.dtype} from {labels.min()}")
    outputs = int(labels.max()) + 1 if classes is None else classes
    if outputs < 2 or labels.max() >= outputs:
        raise JaxftError(f"labels go up to {labels.max()}, of {outputs} classes: there must be two, and no label beyond them")
    return int(np.shape(features)[1]), outputs


def _targets(labels: np.ndarray, outputs: int, binary: bool) -> np.ndarray:
    """[N, 1] class numbers, or [N, K] shares; of two classes [N, 1], the share of the second."""
    if labels.ndim == 2:
        return labels[:, 1:] if binary else labels
    return labels[:, None]


def _stacked(linear: Linear, binary: bool) -> np.ndarray:
    """[D + 1, K]: the bias is the last row. Of two classes the difference."""
    rows = np.vstack([linear.kernel, linear.bias])
    return rows[:, 1:] - rows[:, :1] if binary else rows


def _unstacked(weights: np.ndarray, binary: bool, steps: int, converged: bool) -> Linear:
    rows = np.hstack([-weights / 2, weights / 2]) if binary else weights
    return Linear(rows[:-1], rows[-1], steps, converged)


def _precision(dtype: str) -> contextlib.AbstractContextManager[Any]:
    return jax.enable_x64(True) if dtype == "float64" else contextlib.nullcontext()


def _placed(features: np.ndarray, target: np.ndarray, scale: Scaling, dtype: str, mesh: Mesh) -> dict[str, jax.Array]:
    """The examples, split over the devices; the last one's share is filled up with rows of weight 0."""
    parts = batch_parts(mesh)
    more = -len(features) % parts
    x = (np.asarray(features, np.float64) - scale.mean) / scale.std
    kind = np.int32 if target.dtype.kind in "iu" else dtype
    rows = {
        "x": np.pad(x.astype(dtype), ((0, more), (0, 0))),
        "target": np.pad(target.astype(kind), ((0, more), (0, 0))),
        "weight": np.pad(np.ones(len(features), dtype), (0, more)),
    }
    return put_batch(rows, mesh)


@functools.partial(jax.jit, static_argnames="sigmoid")
def _minimum(
    begin: jax.Array,
    examples: dict[str, jax.Array],
    strength: jax.Array,
    tolerance: jax.Array,
    max_steps: int,
    *,
    sigmoid: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(weights [D + 1, K], steps, largest entry of the gradient); `strength` is C times the number of examples.

    The objective is divided by `strength`: its gradient is then of the size of a mean, whatever C and the number of examples.
    """
    x, target, weight = examples["x"], examples["target"], examples["weight"]
    count = weight.sum()

    def objective(weights: jax.Array) -> jax.Array:
        logits = x @ weights[:-1] + weights[-1]
        if sigmoid:  # softplus(z) - y z is the cross-entropy of y with the logistic function of z
            losses = (jax.nn.softplus(logits) - target * logits).sum(-1)
        elif jnp.issubdtype(target.dtype, jnp.integer):
            losses = jax.nn.logsumexp(logits, -1) - jnp.take_along_axis(logits, target, -1)[:, 0]
        else:
            losses = -(target * jax.nn.log_softmax(logits)).sum(-1)
        return (weight * losses).sum() / count + 0.5 * (weights[:-1] ** 2).sum() / strength

    search = optax.lbfgs(memory_size=_MEMORY)
    value_and_grad = optax.value_and_grad_from_state(objective)

    def steepest(state: Any) -> jax.Array:
        return jnp.abs(optax.tree.get(state, "grad")).max()

    def step(carry: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
        weights, state = carry
        value, gradient = value_and_grad(weights, state=state)
        updates, state = search.update(gradient, state, weights, value=value, grad=gradient, value_fn=objective)
        return optax.apply_updates(weights, updates), state

    def unfinished(carry: tuple[jax.Array, Any]) -> jax.Array:
        count = optax.tree.get(carry[1], "count")
        return (count == 0) | ((count < max_steps) & (steepest(carry[1]) > tolerance))

    weights, state = jax.lax.while_loop(unfinished, step, (begin, search.init(begin)))
    return weights, optax.tree.get(state, "count"), steepest(state)
