"""Fine-tuned networks for other programs."""

from jaxft.export.weights import Exported, export_network, export_run

__all__ = ["Exported", "export_network", "export_run"]
