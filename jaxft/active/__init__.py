"""Active learning: which of many pictures without a label to label next."""

from jaxft.active.badge import badge
from jaxft.active.coreset import k_center_greedy
from jaxft.active.select import METHODS, Selection, select_files
from jaxft.active.uncertainty import entropy, least_confidence, margin, most

__all__ = [
    "METHODS",
    "Selection",
    "badge",
    "entropy",
    "k_center_greedy",
    "least_confidence",
    "margin",
    "most",
    "select_files",
]
