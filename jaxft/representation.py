"""Runs that learn a representation: outputs that are no classes, and what such a config needs besides a loss."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxft.augment import Augment
from jaxft.errors import JaxftError
from jaxft.losses import REPRESENTATION, wanted
from jaxft.tasks import UNLABELLED, get_task
from jaxft.typing import LossFn

#: Width of the outputs where `config.model.outputs` does not say: SimCLR's projection (Chen et al., 2020).
OUTPUTS = 128
#: Losses that compare views, and the one that hides patches.
_OF_VIEWS = ("simclr", "dino")
_OF_PIXELS = "masked_autoencoder"


def learns_representation(config: ConfigDict) -> bool:
    """Whether the outputs of a config's network are no classes and no values: the loss is all that judges them."""
    named = config.loss.name in [function.__name__ for function in REPRESENTATION]
    return named or config.data.task == UNLABELLED or config.model.outputs is not None


def outputs_of(config: ConfigDict, classes: int) -> int:
    """The width of the network's output.

    Args:
      config: of a run.
      classes: what the data ask for.
    """
    return (config.model.outputs or OUTPUTS) if learns_representation(config) else classes


def check_representation(config: ConfigDict, augment: Augment) -> None:
    """Finds what does not go together in a config that learns a representation, and what no other can use.

    Raises:
      JaxftError: a loss without the views, the head or the labels it needs.
    """
    views, head, name = config.input.views, config.model.head, config.loss.name
    hides = head.partition(":")[0] == "mae"
    if views > 1 and not augment.random:
        raise JaxftError(f"config.input.views is {views}, and config.input.augment '{augment}' makes all views alike")
    if views > 1 and config.features.cache:
        raise JaxftError("config.features.cache keeps single looks: with config.input.views set it to False")
    if not learns_representation(config):
        if hides:
            raise JaxftError("config.model.head 'mae' gives pixels: set config.loss.name='masked_autoencoder'")
        return
    name = name or getattr(get_task(config.data.task, 2).loss, "__name__", "")
    known = [function.__name__ for function in REPRESENTATION]
    if name not in known and ":" not in name:
        raise JaxftError(
            f"config.loss.name is '{name}', which needs labels and an output a class: with the task '{config.data.task}' and "
            f"config.model.outputs {config.model.outputs} it takes {', '.join(known)} or 'module:function'"
        )
    if name in _OF_VIEWS and views < 2:
        raise JaxftError(f"the loss '{name}' compares views of a picture: set config.input.views=2")
    if (name == _OF_PIXELS) != hides and (hides or ":" not in name):
        wanted = f"config.loss.name='{_OF_PIXELS}'" if hides else "config.model.head='mae'"
        raise JaxftError(f"the head '{head}' and the loss '{name}' do not go together: set {wanted}")
    if hides and config.model.outputs is not None:
        raise JaxftError("config.model.outputs: the head 'mae' has as many outputs as the image has numbers: set it to None")
    if hides and config.features.cache:
        raise JaxftError(
            "config.features.cache keeps what a frozen stage gives, and the head 'mae' hides other patches each time"
        )
    if name == "supervised_contrastive" and config.data.task != "classify":
        raise JaxftError(f"supervised_contrastive needs one class a picture: the task is '{config.data.task}', not 'classify'")
    if augment.changes_labels:
        raise JaxftError(f"config.input.augment ('{augment}') changes labels or mixes pictures, which '{name}' has no use for")
    if config.data.task == UNLABELLED and config.input.sampler != "shuffle":
        raise JaxftError(
            f"config.input.sampler '{config.input.sampler}' draws by class: pictures without labels take 'shuffle'"
        )
    if config.model.zero_shot:
        raise JaxftError(f"config.model.zero_shot tells classes apart, the loss '{name}' does not: set it to ''")


def trace_on_rows(loss: LossFn, outputs: int) -> None:
    """Traces a loss of this library on shapes of two rows, so that what does not fit it is said before a step is.

    Args:
      loss: of `jaxft.losses.REPRESENTATION`, its options bound.
      outputs: the width of the logits.
    """

    def call(logits: jax.Array, number: jax.Array) -> jax.Array:
        found = {"logits": logits, "target": logits[:, None], "masked": jnp.ones((2, 1))}
        batch = {"image": logits, "label": number, "index": number, "mask": jnp.ones(2)}
        given = {"forward": lambda image, **_: found, "average": {}}
        return loss(found, batch, **{name: given[name] for name in wanted(loss)})

    jax.eval_shape(call, jax.ShapeDtypeStruct((2, outputs), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.int32))


def refuse_representation(task: str, what: str) -> None:
    """Raises JaxftError where a network of this task has no classes that `what` needs."""
    if task == UNLABELLED:
        raise JaxftError(
            f"{what} needs a network that tells classes apart, and this run learnt a representation: fine-tune from it first, "
            "with config.model.pretrained='run:WORKDIR'"
        )
