"""`jaxft probe`: classifiers on the features of a frozen network, chosen on the validation split, judged once on the test."""

from jaxft.probing.methods import METHODS, Settings
from jaxft.probing.run import Probed, Row, probe

__all__ = ["METHODS", "Probed", "Row", "Settings", "probe"]
