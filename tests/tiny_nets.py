"""Networks that compile in a second, by the names `tiny_nets:...`."""

from jaxft.models import vit
from jaxft.models.architecture import Architecture
from jaxft.preprocessing import Preprocessing


def tiny_vit() -> Architecture:
    """Two blocks on sixteen patches."""
    return vit.architecture(vit.Config(16, 2, 2, patch=8, hidden=24), Preprocessing(32, 32))
