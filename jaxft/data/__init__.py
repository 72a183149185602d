"""Data: where examples come from, how they are split, decoded, ordered and batched. NumPy on the host, no TensorFlow."""

from jaxft.data.classes import class_counts, imbalance
from jaxft.data.examine import check_data
from jaxft.data.feeding import LoadTimes, advice
from jaxft.data.open import open_data
from jaxft.data.order import SAMPLERS, Order, batch_examples
from jaxft.data.pipeline import eval_batches, row_batches, train_batches, view_batches
from jaxft.data.semi_supervised import unlabelled_batches
from jaxft.data.sources import Arrays, Files, Source, Splits, Stored, predict_source
from jaxft.data.splits import write_manifest
from jaxft.data.survey import Survey
from jaxft.decoding.decode import BadImage, decode
from jaxft.decoding.transforms import eval_transform, read_eval, read_train

__all__ = [
    "SAMPLERS",
    "Arrays",
    "BadImage",
    "Files",
    "LoadTimes",
    "Order",
    "Source",
    "Splits",
    "Stored",
    "Survey",
    "advice",
    "batch_examples",
    "check_data",
    "class_counts",
    "decode",
    "eval_batches",
    "eval_transform",
    "imbalance",
    "open_data",
    "predict_source",
    "read_eval",
    "read_train",
    "row_batches",
    "train_batches",
    "unlabelled_batches",
    "view_batches",
    "write_manifest",
]
