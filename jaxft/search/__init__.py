"""Searching over the keys of a config: `sweep` runs trials, each an ordinary run, and says which judged best."""

from jaxft.search.loop import METHODS, sweep
from jaxft.search.result import Sweep, Trial

__all__ = ["METHODS", "Sweep", "Trial", "sweep"]
