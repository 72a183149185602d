"""Continual learning: a stream of tasks in runs one after the other, and what becomes of the earlier ones."""

from jaxft.continual.fisher import fisher_diagonal
from jaxft.continual.result import Stream
from jaxft.continual.stream import METHODS, learn
from jaxft.continual.table import average_accuracy, backward_transfer, forgetting

__all__ = ["METHODS", "Stream", "average_accuracy", "backward_transfer", "fisher_diagonal", "forgetting", "learn"]
