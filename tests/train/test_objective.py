"""Losses that see the averages: a mean teacher written by a user, in training, with accumulation, on many devices."""

import functools

import jax
import jax.numpy as jnp
import nets
import numpy as np
import optax
import pytest

from jaxft import losses, tree
from jaxft.errors import JaxftError
from jaxft.metrics import classification_metrics, to_floats, training_metrics
from jaxft.parallel import make_mesh, put_batch, replicate
from jaxft.train import create_state, ema, eval_weights, make_eval_step, make_train_step
from jaxft.tuning import FreezeSpec, make_mask, trains

pytestmark = pytest.mark.usefixtures("quick_compiles")

EVAL = classification_metrics(nets.CLASSES)
METRICS = training_metrics(EVAL)
PARAMS, STATE = nets.init()
MASK = make_mask(FreezeSpec.parse("head,stage2"), PARAMS, nets.STAGES)
TX = optax.sgd(0.1)


def mean_teacher(outputs, batch, *, forward, average, weight=3.0):
    """Cross-entropy, and how far the answer is from the averaged network's to the mirror image (Tarvainen & Valpola, 2017)."""
    teacher = jax.nn.softmax(forward(batch["image"][:, :, ::-1], params=average, train=False)["logits"])
    consistency = ((jax.nn.softmax(outputs["logits"]) - jax.lax.stop_gradient(teacher)) ** 2).mean(-1)
    return losses.softmax_cross_entropy(outputs, batch) + weight * consistency


def _run(loss=mean_teacher, *, mesh=None, steps=3, apply=None, **options):
    apply = apply or nets.make_apply(dropout=0)
    state = create_state(PARAMS, STATE, TX, MASK, rng=jax.random.key(0), ema=True)
    step = jax.jit(make_train_step(apply, loss, TX, MASK, metrics=METRICS, average=ema(0.7), **options))
    state = state if mesh is None else replicate(state, mesh)
    for number in range(steps):
        batch = {key: np.asarray(value) for key, value in nets.make_batch(number, 16).items()}
        state, metrics = step(state, batch if mesh is None else put_batch(batch, mesh))
    return state, to_floats(metrics)


def test_a_mean_teacher_is_trained_as_written_out_by_hand():
    state, figures = _run()
    apply, on = nets.make_apply(dropout=0), trains(MASK)
    (trainable, frozen), model_state = tree.split(PARAMS, MASK), STATE
    teacher, statistics = trainable, STATE  # of frozen norms the statistics do not move, so averaging all is the same

    @jax.jit
    def loss_of(trainable, model_state, teacher, statistics, batch):
        image = batch["image"]
        outputs, new = apply(tree.merge(trainable, frozen), model_state, image, train=on, rng=None)
        other, _ = apply(tree.merge(teacher, frozen), statistics, image[:, :, ::-1], train=False, rng=None)
        apart = (jax.nn.softmax(outputs["logits"]) - jax.nn.softmax(other["logits"])) ** 2
        return (losses.softmax_cross_entropy(outputs, batch) + 3 * apart.mean(-1)).mean(), new

    for number in range(3):
        batch = nets.make_batch(number, 16)
        (loss, model_state), grads = jax.value_and_grad(loss_of, has_aux=True)(
            trainable, model_state, teacher, statistics, batch
        )
        trainable = jax.tree.map(lambda leaf, grad: leaf - 0.1 * grad, trainable, grads)
        share = 0.3 if number else 1.0  # the average begins as the network after the first step
        teacher, statistics = (
            jax.tree.map(lambda old, new, share=share: (1 - share) * old + share * new, old, new)
            for old, new in ((teacher, trainable), (statistics, model_state))
        )
    np.testing.assert_allclose(figures["loss"], loss, rtol=1e-5)
    params, averaged = eval_weights(state)
    for path, leaf in tree.flatten(tree.merge(teacher, frozen)).items():
        np.testing.assert_allclose(tree.flatten(params)[path], leaf, rtol=1e-5, atol=1e-5, err_msg=path)
    for path, leaf in tree.flatten(statistics).items():
        np.testing.assert_allclose(tree.flatten(averaged)[path], leaf, rtol=1e-5, atol=1e-5, err_msg=path)


def test_a_mean_teacher_works_with_accumulation_and_on_eight_devices():
    plain, expected = _run(functools.partial(mean_teacher, weight=1.0), apply=nets.make_apply(dropout=0, batch_norm=False))
    for options in ({"accum_steps": 4}, {"mesh": make_mesh()}):
        state, figures = _run(
            functools.partial(mean_teacher, weight=1.0), apply=nets.make_apply(dropout=0, batch_norm=False), **options
        )
        np.testing.assert_allclose(figures["loss"], expected["loss"], rtol=1e-5)
        for path, leaf in tree.flatten(plain.params).items():
            np.testing.assert_allclose(tree.flatten(state.params)[path], leaf, atol=1e-5, err_msg=path)


def test_in_an_evaluation_the_average_is_what_is_evaluated():
    step = make_eval_step(nets.make_apply(), lambda outputs, batch, *, params, average: _same(params, average), metrics=EVAL)
    _, found = step(PARAMS, STATE, nets.make_batch())
    np.testing.assert_array_equal(found["loss"], np.zeros(8))


def _same(params, average):
    apart = sum(jnp.abs(one - other).sum() for one, other in zip(*map(jax.tree.leaves, (params, average)), strict=True))
    return jnp.full(8, apart)


def test_a_loss_that_takes_averages_where_none_are_kept_is_a_clear_error():
    with pytest.raises(JaxftError, match=r"the loss takes `average`: give make_train_step an average, e.g. jaxft.train.ema"):
        make_train_step(nets.make_apply(), mean_teacher, TX, MASK, metrics=METRICS)


def test_a_loss_whose_anchor_or_teacher_is_not_there_is_told_and_not_trained_without():
    """A penalty that is silently left out would look like training."""

    def stay(outputs, batch, *, params, anchor):
        return losses.softmax_cross_entropy(outputs, batch) + (0 if anchor is None else 1)

    with pytest.raises(JaxftError, match="takes `anchor`, and the state's `fixed` has none"):
        _run(stay, steps=1)
    with pytest.raises(JaxftError, match="takes `teacher`: give make_train_step one"):
        _run(losses.distillation, steps=1)
    with pytest.raises(JaxftError, match="takes `teacher`, and the state's `fixed` has none"):
        _run(losses.distillation, steps=1, teacher=nets.make_apply(dropout=0))
