"""A loss of your own: a plain function of (outputs, batch) that gives one number an example.

jaxft train --config=configs/finetune_folder.py:path=PHOTOS --workdir=runs/poly \
    --config.loss.name=examples.custom_loss:poly1
"""

import jax
import jax.numpy as jnp

from jaxft.losses import softmax_cross_entropy
from jaxft.typing import Batch, Outputs


def poly1(outputs: Outputs, batch: Batch, *, epsilon: float = 1.0) -> jax.Array:
    """Poly-1 cross-entropy [B] (Leng et al., PolyLoss, ICLR 2022): cross-entropy plus epsilon * (1 - p of the label)."""
    probability = jnp.take_along_axis(jax.nn.softmax(outputs["logits"]), batch["label"][:, None], axis=1)[:, 0]
    return softmax_cross_entropy(outputs, batch) + epsilon * (1 - probability)
