"""The methods: each is fitted to the training examples, chooses its setting on the validation split, and is fitted for good."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jaxft.evaluate import scores
from jaxft.probe import (
    Cache,
    Linear,
    TextClassifier,
    knn_scores,
    logistic_path,
    make_cache,
    prototype_logits,
    prototypes,
    ridge_path,
    tune_keys,
)
from jaxft.probe.nearest import METRICS, normalized

Setting = dict[str, Any]
#: Features [N, D] -> logits [N, K].
Scorer = Callable[[np.ndarray], np.ndarray]

#: A vote of none as a logit: that of a share of 1e-12.
_NO_VOTE = 1e-12
#: What cosine similarities with class means are multiplied by beside a cache: CLIP's scale.
_SCALE = 100.0
#: Tip-Adapter's two numbers. Features of networks that were not trained to tell pictures apart by their cosine lie close
#: together, so beta goes further than in the paper (0.1 to 7).
_ALPHAS = np.logspace(-2, 4, 25)
_BETAS = np.logspace(-0.5, 2.5, 13)


@dataclasses.dataclass(frozen=True)
class Settings:
    """`config.probe`: see `jaxft.config.default_config`."""

    standardize: bool
    c_min: float
    c_max: float
    c_count: int
    max_steps: int
    refit: str
    neighbors: str
    temperature: float

    @property
    def strengths(self) -> list[float]:
        return np.logspace(np.log10(self.c_min), np.log10(self.c_max), self.c_count).tolist()


@dataclasses.dataclass(frozen=True)
class Split:
    """Features [N, D] and labels of examples."""

    features: np.ndarray
    labels: np.ndarray

    def __add__(self, other: Split) -> Split:
        return Split(*(np.concatenate([getattr(part, key) for part in (self, other)]) for key in ("features", "labels")))


@dataclasses.dataclass(frozen=True)
class Given:
    """All that a method may use.

    Attributes:
      train, val: the splits; `support` is what the chosen setting is fitted to for good.
      classes: K; 1 of a regression.
      task: of `jaxft.tasks`.
      texts: classes told by texts; None where there are none.
      embed: features -> what the texts are compared with.
      settings, mesh, seed: of the run.
    """

    train: Split
    val: Split
    support: Split
    classes: int
    task: str
    texts: TextClassifier | None
    embed: Callable[[np.ndarray], np.ndarray]
    settings: Settings
    mesh: Mesh
    seed: int


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A method with its setting.

    Attributes:
      setting: the chosen one.
      val_logits: what it said of the validation split, fitted to the training split alone.
      sweep: all settings and their figures on the validation split.
      scorer: fitted for good.
      linear: the same as a linear map of the features, where it is one.
      notes: a line each.
    """

    setting: Setting
    val_logits: np.ndarray
    sweep: list[tuple[Setting, float]]
    scorer: Scorer
    linear: Linear | None = None
    notes: tuple[str, ...] = ()


def values_of(task: str, labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """The figure of each example [N]: whether it is right; of several labels, the share that is; of a value, its error."""
    if task == "regression":
        return np.abs(logits[:, 0] - labels)
    if task == "multilabel":
        return ((logits > 0) == (labels > 0.5)).mean(-1)
    return (logits.argmax(-1) == (labels.argmax(-1) if labels.ndim == 2 else labels)).astype(np.float64)


def _loss(task: str, labels: np.ndarray, logits: np.ndarray) -> float:
    """Decides between settings with the same figure."""
    if task == "regression":
        return float(((logits[:, 0] - labels) ** 2).mean())
    if task == "multilabel":
        return float((np.logaddexp(0, logits) - labels * logits).mean())
    if labels.ndim == 1:
        return scores.log_loss(labels, logits)
    return float(-(labels * np.log(np.maximum(scores.softmax(logits), 1e-30))).sum(-1).mean())


def _best(given: Given, tried: Iterable[tuple[Setting, np.ndarray]]) -> tuple[Setting, np.ndarray, list[tuple[Setting, float]]]:
    """The setting with the best figure on the validation split; of equal ones that with the least loss, of these the first."""
    labels, sign = given.val.labels, -1 if given.task == "regression" else 1
    sweep: list[tuple[Setting, float]] = []
    best: tuple[tuple[float, float], Setting, np.ndarray] | None = None
    for setting, logits in tried:
        figure = float(values_of(given.task, labels, logits).mean())
        sweep.append((setting, figure))
        key = (sign * figure, -_loss(given.task, labels, logits))
        if best is None or key > best[0]:
            best = key, setting, logits
    assert best is not None
    return best[1], best[2], sweep


def linear(given: Given) -> Chosen:
    """Logistic regression by L-BFGS over C, small to large, as CLIP and DINOv2 are judged; of values ridge regression."""
    settings, (train, support) = given.settings, (given.train, given.support)
    if given.task == "regression":
        penalties = [1 / C for C in settings.strengths]
        fits = dict(zip(penalties, _ridges(train, penalties, settings.standardize), strict=True))
        setting, logits, sweep = _best(given, (({"alpha": a}, fit.logits(given.val.features)) for a, fit in fits.items()))
        found = fits[setting["alpha"]]
        if support is not train:
            (found,) = _ridges(support, [setting["alpha"]], settings.standardize)
        return Chosen(setting, logits, sweep, found.logits, found)
    options: dict[str, Any] = {
        "classes": given.classes,
        "multilabel": given.task == "multilabel",
        "standardize": settings.standardize,
        "max_steps": settings.max_steps,
        "mesh": given.mesh,
    }
    fitted = dict(logistic_path(train.features, train.labels, settings.strengths, **options))
    setting, logits, sweep = _best(given, (({"C": C}, fit.logits(given.val.features)) for C, fit in fitted.items()))
    found = fitted[setting["C"]]
    if support is not train:
        ((_, found),) = logistic_path(support.features, support.labels, [setting["C"]], start=found, **options)
    notes = [] if found.converged else [f"linear: not converged after {found.steps} steps (config.probe.max_steps)"]
    if len(fitted) > 2 and setting["C"] in (min(fitted), max(fitted)):
        notes.append(f"linear: C={setting['C']:.3g} is the last one that was tried: widen config.probe.c_min, c_max")
    return Chosen(setting, logits, sweep, found.logits, found, tuple(notes))


def _ridges(split: Split, penalties: list[float], standardize: bool) -> list[Linear]:
    return ridge_path(split.features, split.labels, penalties, standardize=standardize)


def knn(given: Given) -> Chosen:
    """Votes of the k nearest examples (Wu et al., 2018; Caron et al., 2021)."""
    asked = sorted({int(k) for k in given.settings.neighbors.split(",")})
    many = [k for k in asked if k <= len(given.train.labels)] or [len(given.train.labels)]

    def votes(split: Split, queries: np.ndarray, neighbors: list[int]) -> dict[int, np.ndarray]:
        found = knn_scores(
            split.features, split.labels, queries, neighbors,
            classes=given.classes, temperature=given.settings.temperature, mesh=given.mesh,
        )  # fmt: skip
        return {k: np.log(np.maximum(shares, _NO_VOTE)) for k, shares in found.items()}

    tried = votes(given.train, given.val.features, many)
    setting, logits, sweep = _best(given, (({"k": k}, found) for k, found in tried.items()))
    k = setting["k"]
    return Chosen(setting, logits, sweep, lambda queries: votes(given.support, queries, [k])[k])


def class_means(given: Given) -> Chosen:
    """The nearest class mean (Snell et al., 2017), by the Euclidean distance or the cosine."""

    def scorer(split: Split, metric: str) -> Scorer:
        return lambda queries: prototype_logits(_means(given, split, metric), queries, metric)

    tried = (({"metric": metric}, scorer(given.train, metric)(given.val.features)) for metric in METRICS)
    setting, logits, sweep = _best(given, tried)
    return Chosen(setting, logits, sweep, scorer(given.support, setting["metric"]))


def _means(given: Given, split: Split, metric: str) -> np.ndarray:
    features = normalized(split.features) if metric == "cosine" else split.features
    return prototypes(features, split.labels, given.classes)


def _base(given: Given, split: Split) -> Scorer:
    """The classifier beside a cache, of embeddings: that of the texts; without them, the cosine with class means."""
    if given.texts is not None:
        return given.texts.logits
    means = prototypes(normalized(split.features), split.labels, given.classes)
    return lambda queries: prototype_logits(means, queries, "cosine", scale=_SCALE)


def tip(given: Given) -> Chosen:
    """Tip-Adapter (Zhang et al., 2022), without training."""
    return _tip(given, tuned=False)


def tip_f(given: Given) -> Chosen:
    """Tip-Adapter-F: the same with trained keys. They are trained with the numbers that were best without, which are then
    chosen anew."""
    return _tip(given, tuned=True)


def _tip(given: Given, *, tuned: bool) -> Chosen:
    queries = given.embed(given.val.features)

    def search(cache: Cache, base: Scorer) -> tuple[Setting, np.ndarray, list[tuple[Setting, float]]]:
        there, betas = base(queries), _BETAS.tolist()
        cached = zip(betas, cache.logits(queries, betas, mesh=given.mesh), strict=True)
        tried = (
            ({"alpha": alpha, "beta": beta}, there + alpha * found) for beta, found in cached for alpha in _ALPHAS.tolist()
        )
        return _best(given, tried)

    def made(split: Split, setting: Mapping[str, float] | None) -> tuple[Cache, Scorer]:
        known = dataclasses.replace(split, features=given.embed(split.features))
        cache, base = make_cache(known.features, known.labels, given.classes), _base(given, known)
        if setting is None:
            return cache, base
        alpha, beta = setting["alpha"], setting["beta"]
        there = base(known.features)
        return tune_keys(cache, known.features, there, alpha=alpha, beta=beta, seed=given.seed), base

    setting, logits, sweep = search(*made(given.train, None))
    trained_with = dict(setting) if tuned else None
    if tuned:
        setting, logits, sweep = search(*made(given.train, trained_with))
    cache, base = made(given.support, trained_with)

    def scorer(features: np.ndarray) -> np.ndarray:
        embedded = given.embed(features)
        return base(embedded) + setting["alpha"] * next(cache.logits(embedded, [setting["beta"]], mesh=given.mesh))

    return Chosen(setting, logits, sweep, scorer)


def zero_shot(given: Given) -> Chosen:
    """The texts alone; no picture is learnt from."""
    assert given.texts is not None
    texts = given.texts

    def scorer(features: np.ndarray) -> np.ndarray:
        return texts.logits(given.embed(features))

    setting, logits, sweep = _best(given, [({}, scorer(given.val.features))])
    return Chosen(setting, logits, sweep, scorer)


METHODS: dict[str, Callable[[Given], Chosen]] = {
    "zero_shot": zero_shot,
    "linear": linear,
    "knn": knn,
    "prototypes": class_means,
    "tip": tip,
    "tip_f": tip_f,
}
