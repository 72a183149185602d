"""Two networks on the same weights and images, layer by layer: how far apart they are, and where they part."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxft import tree
from jaxft.losses import softmax_cross_entropy
from jaxft.models import Model
from jaxft.ops import plain_ops
from jaxft.verify.original import Original, Theirs
from jaxft.weights import Rule, export


@dataclasses.dataclass(frozen=True)
class Difference:
    """How far `ours` is from `theirs`.

    Attributes:
      name: what was compared.
      max_abs: largest absolute difference.
      max_rel: the same over the largest absolute value of theirs.
      cosine: of the angle between the two.
    """

    name: str
    max_abs: float
    max_rel: float
    cosine: float


def furthest(rows: Iterable[Difference]) -> Difference | None:
    """The row that is furthest off, one with NaN before all others; None of none."""
    return max(rows, key=lambda row: math.inf if math.isnan(row.max_rel) else row.max_rel, default=None)


def difference(name: str, ours: Any, theirs: Theirs) -> Difference:
    """Measures in float64, over the entries that are known of theirs. Another number of entries is infinitely far off."""
    if np.size(ours) != theirs.size:
        return Difference(name, math.inf, math.inf, 0.0)
    b = np.asarray(theirs.values, np.float64)
    a = _same_entries(ours, theirs)
    largest, apart = np.abs(b).max(initial=0.0), np.abs(a - b).max(initial=0.0)
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    cosine = float(a @ b / norms) if norms else float(not apart)
    return Difference(name, float(apart), float(apart / largest) if largest else float(apart), cosine)


def _same_entries(ours: Any, theirs: Theirs) -> np.ndarray:
    """f64 [N], the entries of ours that stand where theirs do: a map is [B, H, W, C] here and mostly [B, C, H, W] there.

    Axes of length one may be missing on a side. Where both layouts have the same shape, the nearer one is meant.
    """
    array = np.asarray(ours, np.float64)
    layouts = [array, array.transpose(0, 3, 1, 2)] if array.ndim == 4 else [array]
    fitting = [x for x in layouts if x.shape == theirs.shape] or layouts
    entries = [x.ravel()[theirs.indices] for x in fitting]
    return min(entries, key=lambda x: float(np.abs(x - theirs.values).max(initial=0.0)))


def layer_names(table: Sequence[Rule]) -> dict[str, str]:
    """'/' path of each convolution and dense layer -> its name in the library of the table; those that are one tensor there."""
    found: dict[str, str] = {}
    for rule in table:
        if rule.dst and rule.dst.endswith("/kernel") and isinstance(rule.src, str) and rule.src.endswith(".weight"):
            found.setdefault(rule.dst.removeprefix("params/").removesuffix("/kernel"), rule.src.removesuffix(".weight"))
    return found


def run_layers(
    model: Model, variables: Mapping[str, Any], images: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(outputs in inference, what each module gave by its '/' path), computed in the network's dtype.

    Args:
      variables: of any float dtype; those of a network of dtype "float64" are widened.
      images: f32 [B, H, W, C].
    """
    double = model.module.dtype == jnp.float64

    def run(variables: Mapping[str, Any], images: jax.Array) -> tuple[Any, Any]:
        if double:  # in the program: what is widened outside is held twice
            variables, images = jax.tree.map(lambda x: x.astype(jnp.float64), (variables, images))
        outputs, more = model.module.apply(variables, images, False, capture_intermediates=True, mutable=["intermediates"])
        return outputs, more["intermediates"]

    with jax.enable_x64(double):
        outputs, inside = jax.jit(run)(dict(variables), images)
    layers = {}
    for path, given in tree.flatten(inside).items():
        module, _, method = path.rpartition("/")
        if method == "__call__" and isinstance(given, tuple) and isinstance(given[0], jax.Array):
            layers[module] = np.asarray(given[0])
    return jax.tree.map(np.asarray, outputs), layers


@dataclasses.dataclass(frozen=True)
class Parting:
    """Where two networks part.

    Attributes:
      layer: the first that differs; `theirs` is its name there.
      after: the last before it that was equal; "" where the first layer differs already.
      hint: what that usually means.
    """

    layer: str
    theirs: str
    after: str
    hint: str

    def __str__(self) -> str:
        since = f"all is equal up to {self.after}" if self.after else "nothing before it could be compared"
        return f"{self.layer} ({self.theirs}) is the first layer that differs, {since}: {self.hint}"


def find_parting(
    model: Model, rows: Sequence[tuple[str, str, Difference]], shapes: Mapping[str, tuple[int, ...]], tolerance: float
) -> Parting | None:
    """The first layer that differs, of `rows` (path, name there, difference) in the order in which they run there."""
    before = ""
    for path, theirs, found in rows:
        if not found.max_rel <= tolerance:  # NaN differs too
            return Parting(path, theirs, before, _hint(model, path, before, shapes))
        before = path
    return None


def _hint(model: Model, path: str, before: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    kernel = shapes[path]
    if not before:
        return "the image reaches it otherwise (preprocessing, channel order), or its stride or padding is another"
    causes = []
    if len(kernel) == 2:
        if kernel[0] != shapes[before][-1] and len(shapes[before]) == 4:
            causes.append("the order in which the map is flattened, or how it is pooled")
        causes.append(
            "the activation before it (exact or tanh GELU, ReLU6), the epsilon of a normalisation (1e-5, 1e-6, 1e-12)"
        )
        causes.append("how attention scales or where a residual is added")
    else:
        if kernel[0] > 1:
            causes.append("padding (torch's explicit one against SAME at stride 2, or an even size)")
        if kernel[2] == 1 and kernel[3] > 1:
            causes.append("the order of grouped channels")
        causes.append(
            "the epsilon or the statistics of the normalisation before it, the activation, the pooling (ceil_mode, padding)"
        )
    return "; ".join(causes)


def compare_layers(
    model: Model, layers: Mapping[str, np.ndarray], original: Original, table: Sequence[Rule], tolerance: float
) -> tuple[tuple[Difference, ...], Parting | None, int]:
    """Compares every convolution and dense layer that both sides know.

    Args:
      model: ours.
      layers: of `run_layers`.
      original: what theirs gave for the same weights and images.
      table: the name table of theirs.
      tolerance: relative.

    Returns:
      (of each stage the layer that is furthest off, where the networks part, how many layers were compared).
    """
    ours = {name: path for path, name in layer_names(table).items() if path in layers}
    rows = []
    for name, value in original.part("layer|").items():  # in the order in which they ran
        if name in ours:
            rows.append((ours[name], name, difference(ours[name], layers[ours[name]], value)))
    stages: dict[str, list[Difference]] = {stage: [] for stage in model.stages}
    for path, _, found in rows:
        stage = model.stage_of(f"{path}/kernel")
        stages[stage].append(dataclasses.replace(found, name=f"{stage}: {path}"))
    worst = tuple(row for row in map(furthest, stages.values()) if row is not None)
    shapes = {path.removesuffix("/kernel"): leaf.shape for path, leaf in tree.flatten(model.variables["params"]).items()}
    return worst, find_parting(model, rows, shapes, tolerance), len(rows)


def batch_in_train_mode(
    model: Model,
    variables: Mapping[str, Any],
    images: np.ndarray,
    labels: np.ndarray,
    table: Sequence[Rule],
    aux: Iterable[str] = (),
) -> tuple[float, dict[str, np.ndarray]]:
    """A batch in train mode, in float64 and XLA's own convolutions: the network is compared, not a lowering of it.

    Args:
      model: built with dtype "float64", without dropout and stochastic depth.
      variables: of any float dtype.
      images, labels: f32 [B, H, W, C], int [B].
      table: whose names the results get.
      aux: auxiliary outputs of logits; 0.3 of the loss of each is added.

    Returns:
      The mean cross-entropy, and by foreign name the gradients and the new statistics.
    """
    with jax.enable_x64(True), plain_ops():
        wide, wide_images = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (dict(variables), images))
        state = {key: value for key, value in wide.items() if key != "params"}
        batch = {"label": jnp.asarray(labels)}

        @jax.jit
        def step(params: Any, state: Any) -> Any:
            def loss(params: Any) -> Any:
                outputs, new = model.apply(params, state, wide_images, train=True, rng=jax.random.key(0))
                total = softmax_cross_entropy(outputs, batch).mean()
                for key in aux:
                    total += 0.3 * softmax_cross_entropy({"logits": outputs[key]}, batch).mean()
                return total, new

            return jax.value_and_grad(loss, has_aux=True)(params)

        (loss, new), grads = step(wide["params"], state)
        found: dict[str, Any] = {"params": grads, **new}
        return float(loss), export(found, table)
