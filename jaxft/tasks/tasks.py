"""A task binds a loss and metrics to a kind of label."""

from __future__ import annotations

import dataclasses

from jaxft import losses, metrics
from jaxft.errors import JaxftError, near
from jaxft.typing import LossFn, Metrics

#: The task of outputs that are no classes.
UNLABELLED = "unlabelled"


@dataclasses.dataclass(frozen=True)
class Task:
    """A kind of label.

    Attributes:
      name: "classify" (`label` [B] int32), "multilabel" ([B, K] f32), "soft" ([B, K] f32, shares that
        sum to 1), "regression" ([B] f32), or "unlabelled": outputs that are no classes, judged by the loss alone.
      loss: gives [B]; what a config without `config.loss.name` trains on.
      metrics: clu Collection class for evaluation.
      train_metrics: the same with the gradient's norm, without what has a number a class.
    """

    name: str
    loss: LossFn
    metrics: Metrics
    train_metrics: Metrics


_LOSSES: dict[str, LossFn] = {
    "classify": losses.softmax_cross_entropy,
    "soft": losses.softmax_cross_entropy,
    "multilabel": losses.binary_cross_entropy,
    "regression": losses.mean_squared_error,
    UNLABELLED: losses.simclr,
}


def get_task(name: str, num_classes: int) -> Task:
    """The task of a name.

    Raises:
      JaxftError: no such task.
    """
    if name not in _LOSSES:
        raise JaxftError(f"no task is called '{name}'{near(name, _LOSSES)}; there are {', '.join(_LOSSES)}")
    if name in ("classify", "soft"):
        collection = metrics.classification_metrics(num_classes)
    elif name == "multilabel":
        collection = metrics.multilabel_metrics()
    elif name == UNLABELLED:
        collection = metrics.loss_metrics()
    else:
        collection = metrics.regression_metrics()
    return Task(name, _LOSSES[name], collection, metrics.training_metrics(collection))
