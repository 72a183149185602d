"""How much a network's answers hang on each parameter: the diagonal of the Fisher information."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxft import tree
from jaxft.errors import JaxftError, near
from jaxft.typing import ApplyFn, Mask, ModelState, Params

#: Whose labels y the gradients of log p(y | x) are of.
LABELS = ("expected", "drawn", "data")


def fisher_diagonal(
    apply: ApplyFn,
    params: Params,
    model_state: ModelState,
    batches: Iterable[Mapping[str, Any]],
    mask: Mask,
    *,
    labels: str = "expected",
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """The mean over examples of (d log p(y | x) / d w)^2, for each trained parameter (Kirkpatrick et al., 2017).

    The network is in evaluation mode. One pass follows the other: what lies on a mesh, as a run's arrays do, JAX 0.10.2 cannot
    batch through the gradient of a grouped convolution's kernel (NotImplementedError).

    Args:
      apply: on `batch["image"]`; `logits` [B, K] are those of a softmax over K classes.
      params, model_state: of the network.
      batches: `image`, `label` [B] int, `index` [B] int, and `mask` [B]: rows of 0 are padding.
      mask: what is trained; the rest gets no gradient.
      labels: "expected", the mean over the network's own answers, exactly, for as many backward passes as there are classes;
        "drawn", y drawn from these, one for each example; "data", the example's label, which is the "empirical Fisher" and
        another thing (Kunstner et al., 2019).
      seed: of "drawn", with the example's `index`.

    Returns:
      '/' path -> f32, of the parameter's shape.

    Raises:
      JaxftError: no such labels, or no example.
    """
    if labels not in LABELS:
        raise JaxftError(f"labels is '{labels}'{near(labels, LABELS)}, not {', '.join(map(repr, LABELS))}")
    trainable, frozen = tree.split(params, mask)

    def logits_of(trainable: Params, image: jax.Array) -> jax.Array:
        whole = tree.merge(trainable, frozen)
        found: jax.Array = apply(whole, model_state, image[None], train=False, rng=None)[0]["logits"][0]
        return found

    def squares(trainable: Params, image: jax.Array, label: jax.Array, index: jax.Array) -> Params:
        """Of one example."""
        logits, back = jax.vjp(lambda trainable: jax.nn.log_softmax(logits_of(trainable, image)), trainable)
        classes = jnp.eye(logits.shape[-1], dtype=logits.dtype)
        if labels == "expected":

            def plus(total: Params, one: tuple[jax.Array, jax.Array]) -> tuple[Params, None]:
                share, chosen = one
                return jax.tree.map(lambda old, grad: old + share * grad**2, total, back(chosen)[0]), None

            zeros = jax.tree.map(jnp.zeros_like, trainable)
            return jax.lax.scan(plus, zeros, (jnp.exp(logits), classes))[0]
        if labels == "drawn":
            label = jax.random.categorical(jax.random.fold_in(jax.random.key(seed), index), logits)
        return jax.tree.map(jnp.square, back(classes[label])[0])

    @jax.jit
    def added(total: Params, trainable: Params, batch: Mapping[str, jax.Array]) -> Params:
        """A batch's squares on top."""

        def plus(total: Params, one: tuple[jax.Array, ...]) -> tuple[Params, None]:
            image, label, index, weight = one
            found = squares(trainable, image, label, index)
            return jax.tree.map(lambda old, new: old + weight * new, total, found), None

        rows = tuple(batch[name] for name in ("image", "label", "index", "mask"))
        return jax.lax.scan(plus, total, rows)[0]

    total: Params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), trainable)
    count = 0.0
    for batch in batches:
        count += float(np.asarray(batch["mask"]).sum())
        total = added(total, trainable, {name: batch[name] for name in ("image", "label", "index", "mask")})
    if not count:
        raise JaxftError("there is no example to say what matters")
    return {path: np.asarray(leaf) / np.float32(count) for path, leaf in tree.flatten(jax.device_get(total)).items()}
