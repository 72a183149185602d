"""Data: where examples come from, how they are split, decoded, ordered and batched. NumPy on the host, no TensorFlow."""

from jaxft.data.decode import BadImage, decode
from jaxft.data.open import open_data
from jaxft.data.order import batch_examples
from jaxft.data.pipeline import eval_batches, row_batches, train_batches
from jaxft.data.sources import Arrays, Files, Source, Splits, Stored, predict_source
from jaxft.data.splits import write_manifest
from jaxft.data.transforms import AUGMENTS, Augment, eval_transform, find_augment, train_transform

__all__ = [
    "AUGMENTS",
    "Arrays",
    "Augment",
    "BadImage",
    "Files",
    "Source",
    "Splits",
    "Stored",
    "batch_examples",
    "decode",
    "eval_batches",
    "eval_transform",
    "find_augment",
    "open_data",
    "predict_source",
    "row_batches",
    "train_batches",
    "train_transform",
    "write_manifest",
]
