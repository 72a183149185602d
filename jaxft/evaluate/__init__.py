"""Judging a network: every example once, figures that equal scikit-learn's, intervals."""

from jaxft.evaluate import scores
from jaxft.evaluate.bootstrap import bootstrap_difference, bootstrap_interval
from jaxft.evaluate.evaluate import Evaluation, evaluate, evaluate_source, evaluate_views
from jaxft.evaluate.views import averaged, parse_views

__all__ = [
    "Evaluation",
    "averaged",
    "bootstrap_difference",
    "bootstrap_interval",
    "evaluate",
    "evaluate_source",
    "evaluate_views",
    "parse_views",
    "scores",
]
