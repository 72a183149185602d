"""Moments that go on into a later phase, factors set from outside, L2-SP's starting values."""

import jax
import jax.numpy as jnp
import nets
import numpy as np
import optax
import pytest

from jaxft import tree
from jaxft.optim import make_optimizer
from jaxft.optim.methods import METHODS
from jaxft.optim.moments import Anchors, Factor, Generations, anchored, by_label, by_path, carried, find, with_factor
from jaxft.tuning import FreezeSpec, make_mask

PARAMS, _ = nets.init()
HEAD = make_mask(FreezeSpec.parse("head"), PARAMS, nets.STAGES)
MORE = make_mask(FreezeSpec.parse("from:stage2"), PARAMS, nets.STAGES)
NEW_HEAD = ("head/kernel", "head/bias")
KEPT = [name for name, method in METHODS.items() if not method.free]


def _gradients(mask, count, seed=0):
    """A gradient a step of the leaves of `mask`; each leaf's own do not depend on which others there are."""
    trainable, _ = tree.split(PARAMS, mask)
    draw = lambda path, leaf, step: np.random.default_rng([seed, step, *path.encode()]).normal(size=leaf.shape)
    return [
        tree.map_with_path(lambda path, leaf, step=step: jnp.asarray(draw(path, leaf, step), jnp.float32), trainable)
        for step in range(count)
    ]


def _run(tx, params, gradients):
    update, state = jax.jit(tx.update), tx.init(params)
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def _collect(tx, params, gradients, state=None):
    """The state after gradients at the same place: each operation by itself, so that the numbers are the same to the bit."""
    state = tx.init(params) if state is None else state
    for gradient in gradients:
        _, state = tx.update(gradient, state, params)
    return state


def _labels(mask, of_head, of_rest):
    trainable, _ = tree.split(PARAMS, mask)
    return {path: of_head if path.startswith("head") else of_rest for path in tree.paths(trainable)}


def _optimizer(name, mask, generations, **settings):
    settings = {"lr": 1e-2, "total_steps": 10, "schedule": "constant", **settings}
    return make_optimizer(PARAMS, mask, name=name, generations=generations, head=NEW_HEAD, **settings)[0]


@pytest.mark.parametrize("name", KEPT)
def test_moments_over_two_phases_are_those_of_one_optimizer_that_ran_all_along_and_new_ones_those_of_a_fresh_one(name):
    head, _ = tree.split(PARAMS, HEAD)
    first = _optimizer(name, HEAD, _labels(HEAD, "one", "one"), clip_norm=1e9)
    state = _collect(first, head, _gradients(HEAD, 3))
    # Another rate, schedule, decay and clipping, as a later phase may have.
    second = _optimizer(name, MORE, _labels(MORE, "one", "two"), lr=1e-3, schedule="cosine", weight_decay=0.0)
    more, _ = tree.split(PARAMS, MORE)
    entered = carried(state, second.init(more))
    state = _collect(second, more, _gradients(MORE, 7)[3:], entered)
    (found,) = find(state, Generations)

    along = _collect(first, head, _gradients(HEAD, 7))
    (expected,) = find(along, Generations)
    assert found.states.keys() == {"one", "two"}
    jax.tree.map(np.testing.assert_array_equal, found.states["one"], expected.states["one"])

    rest = tree.map_with_path(lambda path, trains: trains and not path.startswith("head"), MORE)
    alone = _optimizer(name, rest, _labels(rest, "two", "two"))
    trainable, _ = tree.split(PARAMS, rest)
    fresh = _collect(alone, trainable, _gradients(rest, 7)[3:])
    (expected,) = find(fresh, Generations)
    jax.tree.map(np.testing.assert_array_equal, found.states["two"], expected.states["two"])
    counts = {int(leaf) for leaf in jax.tree.leaves(found.states["one"]) if leaf.dtype == jnp.int32}
    assert counts == (set() if name in ("sgd", "lars", "rmsprop") else {7})


@pytest.mark.parametrize("name", KEPT)
def test_which_generation_a_leaf_is_of_changes_no_update(name):
    more, _ = tree.split(PARAMS, MORE)
    gradients = _gradients(MORE, 3)
    one, _ = _run(_optimizer(name, MORE, None, weight_decay=0.1, clip_norm=1.0), more, gradients)
    two, _ = _run(_optimizer(name, MORE, _labels(MORE, "a", "b"), weight_decay=0.1, clip_norm=1.0), more, gradients)
    jax.tree.map(lambda ours, other: np.testing.assert_allclose(ours, other, rtol=1e-6, atol=1e-7), one, two)


def test_a_generation_that_loses_leaves_keeps_the_others_moments_and_its_count():
    more, _ = tree.split(PARAMS, MORE)
    _, state = _run(_optimizer("adam", MORE, _labels(MORE, "one", "one")), more, _gradients(MORE, 4))
    head, _ = tree.split(PARAMS, HEAD)
    narrow = carried(state, _optimizer("adam", HEAD, _labels(HEAD, "one", "one")).init(head))
    (before,), (after,) = find(state, Generations), find(narrow, Generations)
    assert int(after.states["one"].count) == 4
    assert tree.paths(after.states["one"].mu) == ["head/bias", "head/kernel"]
    np.testing.assert_array_equal(after.states["one"].mu["head"]["kernel"], before.states["one"].mu["head"]["kernel"])


def test_nothing_goes_on_from_a_state_without_generations_or_of_other_labels():
    head, _ = tree.split(PARAMS, HEAD)
    _, state = _run(_optimizer("adam", HEAD, _labels(HEAD, "one", "one")), head, _gradients(HEAD, 2))
    fresh = _optimizer("adam", HEAD, _labels(HEAD, "two", "two")).init(head)
    for before in (state, optax.adam(0.1).init(head)):
        jax.tree.map(np.testing.assert_array_equal, carried(before, fresh), fresh)


def test_averages_go_on_by_path_and_what_is_new_starts():
    old, new = {"head": {"w": 1.0, "b": 2.0}}, {"head": {"w": 5.0}, "stage": {"w": 6.0}}
    assert by_path(old, new) == {"head": {"w": 1.0}, "stage": {"w": 6.0}}
    assert by_path(None, new) == new
    assert by_path(old, None) is None


def test_the_factor_of_plateau_multiplies_every_update_and_nothing_else():
    more, _ = tree.split(PARAMS, MORE)
    tx = _optimizer("adamw", MORE, None, schedule="plateau", weight_decay=0.1)
    (gradient,) = _gradients(MORE, 1)
    state = tx.init(more)
    assert [float(node.value) for node in find(state, Factor)] == [1.0]
    whole, after = tx.update(gradient, state, more)
    half, other = tx.update(gradient, with_factor(state, jnp.float32(0.5)), more)
    jax.tree.map(lambda one, two: np.testing.assert_allclose(two, 0.5 * one, rtol=1e-6), whole, half)
    assert float(next(find(other, Factor)).value) == 0.5
    jax.tree.map(np.testing.assert_array_equal, with_factor(other, jnp.float32(1.0)), after)


@pytest.mark.parametrize(("name", "beta"), [("sgd", 0.1), ("adamw", 0.1), ("lion", 0.1), ("adamw", None)])
def test_l2_sp_pulls_pretrained_kernels_to_their_start_and_decays_the_head(name, beta):
    """Li et al., 2018, equation 4: the gradient of alpha/2 |w - w0|^2 + beta/2 |v|^2, written out in float64.

    Without a beta the head is pulled like the rest.
    """
    alpha, lr = 0.3, 0.05
    more, _ = tree.split(PARAMS, MORE)
    moved = jax.tree.map(lambda leaf: leaf + 0.25, more)
    settings = {"lr": lr, "l2_sp": alpha, "l2_sp_head": beta}
    tx = _optimizer(name, MORE, None, **settings, **({"momentum": 0.0} if name == "sgd" else {}))
    updates, state = tx.update(jax.tree.map(jnp.zeros_like, more), tx.init(more), moved)
    for path, update in tree.flatten(updates).items():
        start, now = (np.asarray(tree.flatten(leaves)[path], np.float64) for leaves in (more, moved))
        pull = beta * now if path.startswith("head") and beta is not None else alpha * (now - start)
        np.testing.assert_allclose(update, -lr * pull if path.endswith("kernel") else 0.0 * now, rtol=1e-5, atol=1e-7)
    (anchors,) = find(state, Anchors)
    head = [] if beta is not None else ["head/kernel"]
    assert tree.paths(anchors.start) == ["block2/conv/kernel", *head]  # what does not decay or is not pulled needs no room
    other = anchored(state, jax.tree.map(lambda leaf: leaf + 7.0, PARAMS))
    np.testing.assert_array_equal(
        next(find(other, Anchors)).start["block2"]["conv"]["kernel"], PARAMS["block2"]["conv"]["kernel"] + 7.0
    )


def test_a_label_without_leaves_has_no_state():
    tx = by_label({"a": optax.scale_by_adam(), "b": optax.scale_by_adam()}, {"x": "a"})
    assert tx.init({"x": jnp.ones(2)}).states.keys() == {"a"}
