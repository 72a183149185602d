"""Classifiers on the features of a frozen network: what few labels, or texts alone, are enough for."""

from jaxft.probe.cache import Cache, make_cache, tune_keys
from jaxft.probe.head import has_linear_head, with_linear_head, with_zero_shot_head
from jaxft.probe.linear import Linear, logistic_path, logistic_regression
from jaxft.probe.nearest import knn_scores, prototype_logits, prototypes
from jaxft.probe.ridge import ridge_path
from jaxft.probe.zero_shot import TextClassifier, read_texts, text_classifier

__all__ = [
    "Cache",
    "Linear",
    "TextClassifier",
    "has_linear_head",
    "knn_scores",
    "logistic_path",
    "logistic_regression",
    "make_cache",
    "prototype_logits",
    "prototypes",
    "read_texts",
    "ridge_path",
    "text_classifier",
    "tune_keys",
    "with_linear_head",
    "with_zero_shot_head",
]
