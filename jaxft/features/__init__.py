"""What a frozen prefix gives is computed once for every example, kept in files, and read by training."""

from jaxft.features.prefix import Prefix, frozen_prefix
from jaxft.features.rows import DTYPES, Rows
from jaxft.features.views import Views, about, feature_batches, feature_eval_batches, fill, views_of

__all__ = [
    "DTYPES",
    "Prefix",
    "Rows",
    "Views",
    "about",
    "feature_batches",
    "feature_eval_batches",
    "fill",
    "frozen_prefix",
    "views_of",
]
