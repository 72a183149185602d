"""Parameters that `fsdp` splits are made whole where they are used (ZeRO: Rajbhandari et al., 2020)."""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from jaxft.typing import ApplyFn, ModelState, Outputs, Params, Trains


def gathered(apply: ApplyFn, places: Any) -> ApplyFn:
    """The network on split parameters: each is gathered over `fsdp` before it is used, and its gradient is split where it
    arises. Batch and activations stay where they are.

    Left to itself the compiler for TPUs sends the parts around in many small steps, once for each pass. A parameter that was
    gathered for the forward pass is kept for the backward one; TPUs gather and keep it in the type it is computed in, GPUs in
    its own (docs/aot.json).

    Args:
      apply: the network.
      places: of `param_shardings`; parts over `tensor` stay parts.
    """
    if not any("fsdp" in place.spec for place in jax.tree.leaves(places)):
        return apply

    def on_split(
        params: Params, model_state: ModelState, image: jax.Array, *, train: bool | Trains, rng: jax.Array | None
    ) -> tuple[Outputs, ModelState]:
        return apply(jax.tree.map(_gather, params, places), model_state, image, train=train, rng=rng)

    return on_split


def _gather(leaf: jax.Array, place: NamedSharding) -> jax.Array:
    if "fsdp" not in place.spec:
        return leaf
    whole = NamedSharding(place.mesh, PartitionSpec(*(None if axis == "fsdp" else axis for axis in place.spec)))

    @jax.custom_vjp
    def gather(leaf: jax.Array) -> jax.Array:
        return jax.lax.with_sharding_constraint(leaf, whole)

    gather.defvjp(lambda leaf: (gather(leaf), None), lambda _, grad: (jax.lax.with_sharding_constraint(grad, place),))
    return gather(leaf)
