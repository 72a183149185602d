"""Training steps of small networks, traced and judged: good ones, and two that do frozen work."""

import functools

import jax
import jax.numpy as jnp
import optax

from jaxft import tree
from jaxft.explain.program import backward_needs, live_ops, modules_of
from jaxft.explain.step import plain_ops
from jaxft.explain.verdict import judge_backward
from jaxft.models import build
from jaxft.preprocessing import on_pixels
from jaxft.tasks import get_task
from jaxft.train import create_state, make_objective, make_train_step
from jaxft.tuning import FreezeSpec, make_mask

Shape = jax.ShapeDtypeStruct
TX = optax.sgd(0.1)
TASK = get_task("classify", 10)
BATCH = {"image": Shape((8, 32, 32, 3), jnp.uint8), "label": Shape((8,), jnp.int32), "mask": Shape((8,), jnp.float32)}


def masked_afterwards(apply, mask):
    """Takes all gradients, reports their norm, and only then forgets those of frozen leaves."""
    objective = make_objective(apply, TASK.loss, mask)

    def step(state, batch):
        rng = jax.random.wrap_key_data(state.rng)
        grads, _ = jax.grad(objective, has_aux=True)(state.params, {}, state.model_state, batch, rng)
        trained, _ = tree.split(grads, mask)
        own, frozen = tree.split(state.params, mask)
        updates, _ = TX.update(trained, state.opt_state, own)
        return tree.merge(optax.apply_updates(own, updates), frozen), optax.global_norm(grads)

    return step


def with_input_gradient(apply, mask):
    """Reports how large the gradient of the pixels is: a backward pass through a frozen prefix."""
    objective = make_objective(apply, TASK.loss, mask)

    def step(state, batch):
        rng = jax.random.wrap_key_data(state.rng)
        own, frozen = tree.split(state.params, mask)

        def of_image(own, image):
            return objective(own, frozen, state.model_state, {**batch, "image": image}, rng)

        found = jax.grad(of_image, argnums=(0, 1), has_aux=True)(own, batch["image"].astype(jnp.float32))[0]
        return found[0], optax.global_norm(found[1])

    return step


@functools.cache
def network(name, dtype="float32"):
    model = build(name, 10, size=32, dtype=dtype)
    return model, model.shapes


@functools.cache
def judged(name, train, freeze="", *, bad=None, accum_steps=1, compiled=False, dtype="float32"):
    """(verdict, the traced step and forward pass, the mask by path)."""
    model, (params, model_state) = network(name, dtype)
    mask = make_mask(FreezeSpec.parse(train, freeze), params, model.stages)
    apply = on_pixels(model.apply, model.preprocessing)
    state = jax.eval_shape(lambda p, m: create_state(p, m, TX, mask, rng=jax.random.key(0)), params, model_state)

    def step():
        if bad:
            return jax.jit(bad(apply, mask))
        return jax.jit(make_train_step(apply, TASK.loss, TX, mask, metrics=TASK.train_metrics, accum_steps=accum_steps))

    with plain_ops():
        traced = step().trace(state, BATCH)
        own, frozen = tree.split(params, mask)
        forward = jax.jit(make_objective(apply, TASK.loss, mask), keep_unused=True).trace(
            own, frozen, model_state, BATCH, jax.eval_shape(lambda: jax.random.key(0))
        )
    count = len(jax.tree.leaves(own))
    modules = modules_of(tree.paths(params))
    needs = backward_needs(forward.jaxpr, [i < count for i in range(len(forward.jaxpr.jaxpr.invars))], modules)
    text = step().lower(state, BATCH).compile().as_text() if compiled else ""
    flat = tree.flatten(mask)
    return judge_backward(live_ops(traced.jaxpr), needs, flat, modules, text), (traced, forward), flat
