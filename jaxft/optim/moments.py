"""Parts of an optimizer's state that outlive a step: moments by when they began, a factor of the rate, starting values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxft import tree
from jaxft.typing import Params


class Parts(NamedTuple):
    """The states of one transform, or of several, each over leaves of its own, by the label of these leaves."""

    states: dict[str, Any]


class Generations(NamedTuple):
    """`Parts` whose label is the phase that the moments of these leaves began in; each counts its own steps."""

    states: dict[str, Any]


class Factor(NamedTuple):
    """What every update is multiplied by, f32 []: set from outside, see `with_factor`."""

    value: jax.Array


class Anchors(NamedTuple):
    """The values that L2-SP pulls to."""

    start: Params


def by_label(
    transforms: Mapping[str, optax.GradientTransformation], labels: Mapping[str, str], kind: type = Parts
) -> optax.GradientTransformation:
    """Leaves go to the transform of their label, each transform sees its own alone. Labels without a leaf have no state.

    Args:
      transforms: by label.
      labels: of the '/' path of each leaf.
      kind: of the state, `Parts` or `Generations`.
    """

    def parts(given: Params) -> dict[str, dict[str, Any]]:
        flat = tree.flatten(given)
        present = [label for label in transforms if any(labels[path] == label for path in flat)]
        return {
            label: tree.unflatten({path: leaf for path, leaf in flat.items() if labels[path] == label}) for label in present
        }

    def init(params: Params) -> Any:
        return kind({label: transforms[label].init(part) for label, part in parts(params).items()})

    def update(updates: Params, state: Any, params: Params | None = None) -> tuple[Params, Any]:
        own = {} if params is None else parts(params)
        found, states = {}, {}
        for label, part in parts(updates).items():
            found[label], states[label] = transforms[label].update(part, state.states[label], own.get(label))
        return tree.merge(*found.values()), kind(states)

    return optax.GradientTransformation(init, update)


def scale_by_factor() -> optax.GradientTransformation:
    """Multiplies all updates by a number of the state, 1 at first."""

    def update(updates: Any, state: Factor, params: Any = None) -> tuple[Any, Factor]:
        del params
        return jax.tree.map(lambda leaf: leaf * state.value.astype(leaf.dtype), updates), state

    return optax.GradientTransformation(lambda params: Factor(jnp.ones((), jnp.float32)), update)


def pull_to_start(alpha: float, beta: float, pulled: Mapping[str, Any], new: Mapping[str, Any]) -> optax.GradientTransformation:
    """L2-SP (Li et al., 2018): adds `alpha * (w - start)`, of leaves that were not pretrained `beta * w`.

    Args:
      alpha, beta: see above.
      pulled: tree of bools, which leaves it acts on.
      new: tree of bools, which were not pretrained.
    """
    flat, fresh = tree.flatten(pulled), tree.flatten(new)

    def init(params: Params) -> Anchors:
        kept = {path: jnp.copy(leaf) for path, leaf in tree.flatten(params).items() if flat[path] and not fresh[path]}
        return Anchors(tree.unflatten(kept))

    def update(updates: Params, state: Anchors, params: Params | None = None) -> tuple[Params, Anchors]:
        assert params is not None
        now, start = tree.flatten(params), tree.flatten(state.start)

        def changed(path: str, update: Any) -> Any:
            if not flat[path]:
                return update
            return update + (beta * now[path] if fresh[path] else alpha * (now[path] - start[path]))

        return tree.map_with_path(changed, updates), state

    return optax.GradientTransformation(init, update)


def find(state: Any, kind: type) -> Iterator[Any]:
    """The nodes of a class in an optimizer's state."""
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, kind))
    return (node for node in nodes if isinstance(node, kind))


def _replaced(state: Any, kind: type, other: Any) -> Any:
    same = lambda node: isinstance(node, kind)
    return jax.tree.map(lambda node: other(node) if same(node) else node, state, is_leaf=same)


def with_factor(opt_state: Any, value: jax.Array) -> Any:
    """The state with another `Factor`, f32 [] placed as the old one."""
    return _replaced(opt_state, Factor, lambda _: Factor(value))


def anchored(opt_state: Any, params: Params) -> Any:
    """The state with these parameters (the full tree) for what L2-SP pulls to."""
    flat = tree.flatten(params)
    return _replaced(
        opt_state, Anchors, lambda node: Anchors(tree.map_with_path(lambda path, _: jnp.copy(flat[path]), node.start))
    )


def by_path(old: Any, new: Any) -> Any:
    """`new` with those leaves of `old` that stand at the same key path, in trees of any kind."""
    flat = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(old)[0]}
    return jax.tree_util.tree_map_with_path(lambda path, leaf: flat.get(jax.tree_util.keystr(path), leaf), new)


def carried(old: Any, new: Any) -> Any:
    """A fresh optimizer state that goes on with the moments of `old`, where it has generations of the same labels."""
    before = next(find(old, Generations), Generations({}))
    return _replaced(new, Generations, lambda node: by_path(before, node))
