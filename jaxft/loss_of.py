"""The loss of a config: found by its name, given what the run knows, checked against the labels before any work is done."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxft import losses
from jaxft.augment import Augment, soft_label
from jaxft.errors import JaxftError
from jaxft.representation import trace_on_rows
from jaxft.tasks import UNLABELLED, Task
from jaxft.typing import LossFn


def loss_of(
    config: ConfigDict,
    task: Task,
    labels: np.ndarray,
    outputs: int,
    known: Mapping[str, Any],
    augment: Augment,
) -> LossFn:
    """The loss of a config, for training or for evaluations; `known` is what the run knows and a loss may take."""
    name, options = config.loss.name, config.loss.options.to_dict()
    loss = losses.resolve(name or task.loss, known, **options)
    if ":" not in name:  # ours say what does not fit them when they are traced; another may need more than logits
        logits = jax.ShapeDtypeStruct((1, outputs), jnp.float32)
        label = jax.ShapeDtypeStruct((1, *labels.shape[1:]), labels.dtype)
        if known["train"] and augment.mixes_examples:
            label = jax.eval_shape(functools.partial(soft_label, classes=outputs), label)
        try:
            if task.name == UNLABELLED:
                trace_on_rows(loss, outputs)
            else:
                jax.eval_shape(
                    functools.partial(loss, **dict.fromkeys(losses.wanted(loss))), {"logits": logits}, {"label": label}
                )
        except JaxftError as error:
            raise JaxftError(f"config.loss.options: {error}") from error
        except (TypeError, ValueError) as error:
            said = str(error).strip().splitlines()[0]
            raise JaxftError(
                f"config.loss: {name or 'the loss'} does not work with the task '{config.data.task}' and the options "
                f"{options}: {said}"
            ) from error
    return loss


def notes_on_classes(config: ConfigDict, unequal: str) -> list[str]:
    """What to say of classes of unequal size: what can be done, or that two things are done at once."""
    drawn, weighted = config.input.sampler != "shuffle", config.loss.name == "logit_adjusted"
    weighted |= any(config.loss.options.get(key) is not None for key in ("class_weights", "pos_weight"))
    if drawn and weighted:
        return ["config.input.sampler and config.loss both favour small classes: mostly one of them is enough"]
    if drawn or weighted or not unequal:
        return []
    if config.data.task == "multilabel":
        return [f"{unequal}; config.loss.options.pos_weight='balanced' evens them out"]
    return [
        f"{unequal}; what evens them out: config.input.sampler='balanced' or 'sqrt', "
        "config.loss.options.class_weights='balanced', config.loss.name='logit_adjusted'; what judges them alike: "
        "config.train.monitor='balanced_accuracy'"
    ]
