"""Figures from predictions, in NumPy; each equals scikit-learn's of the same name (tests/evaluate/test_scores.py)."""

from __future__ import annotations

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities [N, K] f64 from logits [N, K]."""
    shifted = np.asarray(logits, np.float64) - np.max(logits, axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    return exponentials / exponentials.sum(-1, keepdims=True)


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Share of equal entries; labels and predictions [N]."""
    return float(np.mean(np.asarray(labels) == np.asarray(predicted)))


def top_k_accuracy(labels: np.ndarray, logits: np.ndarray, k: int) -> float:
    """Share of examples whose label is among the k largest logits [N, K]; equal logits rank by class number."""
    ranked = np.argsort(-logits, axis=-1, kind="stable")[:, :k]
    return float((ranked == np.asarray(labels)[:, None]).any(-1).mean())


def log_loss(labels: np.ndarray, logits: np.ndarray) -> float:
    """Mean cross-entropy in nats of logits [N, K] with labels [N]."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return float(-log_p[np.arange(len(labels)), labels].mean())


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts [K, K]: rows are labels, columns predictions."""
    flat = np.asarray(labels, np.int64) * num_classes + np.asarray(predicted, np.int64)
    return np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)


def precision_recall_f1(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per class [K]; 0 where undefined (a class never predicted, or never seen)."""
    right = np.diag(confusion).astype(np.float64)
    precision = _divide(right, confusion.sum(0))
    recall = _divide(right, confusion.sum(1))
    return precision, recall, _divide(2 * right, confusion.sum(0) + confusion.sum(1))


def macro_f1(confusion: np.ndarray) -> float:
    """Mean F1 over the classes that occur in labels or predictions."""
    present = (confusion.sum(0) + confusion.sum(1)) > 0
    return float(precision_recall_f1(confusion)[2][present].mean())


def average_precision(labels: np.ndarray, values: np.ndarray) -> float:
    """Area under the precision-recall curve as a step function, of binary labels [N] and scores [N]; 0 without positives."""
    labels = np.asarray(labels) > 0.5
    if not labels.any():
        return 0.0
    order = np.argsort(-values, kind="stable")
    labels, values = labels[order], np.asarray(values)[order]
    last = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)  # ties make one threshold
    hits = np.cumsum(labels)[last]
    precision, recall = hits / (last + 1), hits / labels.sum()
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def mean_average_precision(labels: np.ndarray, logits: np.ndarray) -> float:
    """Mean over the K labels of `average_precision`; labels and logits [N, K]."""
    return float(np.mean([average_precision(labels[:, k], logits[:, k]) for k in range(logits.shape[1])]))


def roc_auc(labels: np.ndarray, values: np.ndarray) -> float:
    """Area under the ROC curve of binary labels [N] and scores [N] (ties count half); NaN where one class is absent."""
    labels = np.asarray(labels) > 0.5
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        return float("nan")
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = mean_rank[inverse][labels].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def regression_scores(labels: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """`mae`, `rmse` and `r2` of values [N] against labels [N]."""
    labels, values = np.asarray(labels, np.float64), np.asarray(values, np.float64)
    error = values - labels
    spread = ((labels - labels.mean()) ** 2).sum()
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "r2": float(1 - (error**2).sum() / spread) if spread else float("nan"),
    }


def _divide(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.zeros(len(top)), where=bottom > 0)
