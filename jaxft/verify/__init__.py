"""Is a network the one its weights were made for? Compared with the original, layer by layer."""

from jaxft.verify.compare import Difference, Parting, compare_layers, run_layers
from jaxft.verify.receipt import Receipt
from jaxft.verify.verify import verify

__all__ = ["Difference", "Parting", "Receipt", "compare_layers", "run_layers", "verify"]
