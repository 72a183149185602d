"""Losses: plain functions of (outputs, batch) that give one number an example, neither masked nor averaged.

What a loss takes by these names, and its options do not set, the run gives it (see `resolve`), be it of this package or not:
`class_counts` [K] f64, the training examples of each class; `num_examples`, how many there are; `train`, True in training and
False in evaluations; `teacher_classes` int [Kt], which of the K classes each class of the teacher is, -1 for none. Weights of
classes and the adjustment of logits belong to training: an evaluation is of the plain loss, so that its figure means the same
whatever the weights.
"""

from jaxft.losses.continual import ewc
from jaxft.losses.distillation import distillation, feature_distillation
from jaxft.losses.fixmatch import fixmatch
from jaxft.losses.resolve import import_function, resolve, wanted
from jaxft.losses.self_supervised import REPRESENTATION, dino, masked_autoencoder, simclr, supervised_contrastive
from jaxft.losses.supervised import (
    SCHEMES,
    ClassWeights,
    binary_cross_entropy,
    class_weights,
    focal,
    logit_adjusted,
    mean_squared_error,
    sigmoid_focal,
    softmax_cross_entropy,
)

__all__ = [
    "REPRESENTATION",
    "SCHEMES",
    "ClassWeights",
    "binary_cross_entropy",
    "class_weights",
    "dino",
    "distillation",
    "ewc",
    "feature_distillation",
    "fixmatch",
    "focal",
    "import_function",
    "logit_adjusted",
    "masked_autoencoder",
    "mean_squared_error",
    "resolve",
    "sigmoid_focal",
    "simclr",
    "softmax_cross_entropy",
    "supervised_contrastive",
    "wanted",
]
