"""The training step: frozen is frozen for real, means are exact, roads agree, devices agree."""

import functools

import jax
import jax.numpy as jnp
import nets
import numpy as np
import optax
import pytest

from jaxft import losses, models, tree
from jaxft.errors import JaxftError
from jaxft.metrics import classification_metrics, to_floats, training_metrics
from jaxft.optim import make_optimizer
from jaxft.parallel import make_mesh, put_batch, replicate
from jaxft.train import create_state, ema, eval_weights, make_train_step
from jaxft.train.statistics import moving
from jaxft.tuning import FreezeSpec, freeze_updates, make_mask, trains

pytestmark = pytest.mark.usefixtures("quick_compiles")

PARAMS, STATE = nets.init()
METRICS = training_metrics(classification_metrics(nets.CLASSES))
KEY = jax.random.key(3)


def _setup(train="head", *, freeze=(), apply=None, loss=losses.softmax_cross_entropy, accum_steps=1, average=None, **optim):
    mask = make_mask(FreezeSpec.parse(train, freeze), PARAMS, nets.STAGES)
    optim = {"name": "adamw", "lr": 1e-2, "total_steps": 10, "weight_decay": 0.1, **optim}
    tx, _ = make_optimizer(PARAMS, mask, **optim)
    state = create_state(PARAMS, STATE, tx, mask, rng=KEY, ema=average is not None)
    step = make_train_step(
        apply or nets.make_apply(), loss, tx, mask, metrics=METRICS, accum_steps=accum_steps, average=average
    )
    return mask, tx, state, step


def _run(state, step, steps=3, size=8):
    step = jax.jit(step)
    for number in range(steps):
        state, metrics = step(state, nets.make_batch(number, size))
    return state, to_floats(metrics)


def _random_spec(seed):
    """Random globs over modules, leaves and stages; never everything frozen."""
    rng = np.random.default_rng(seed)
    terms = ["head", "stem", "stage1", "from:stage2", "**/bias", "block1/bn", "**/scale", "block2/conv/kernel", "*/conv"]
    train = [str(term) for term in rng.choice(terms, rng.integers(1, 4), replace=False)]
    freeze = [
        str(term) for term in rng.choice(["**/bn/bias", "stem/conv/bias", "block2/bn"], rng.integers(0, 2), replace=False)
    ]
    return train, freeze


@pytest.mark.parametrize("seed", range(8))
def test_frozen_leaves_and_statistics_stay_bit_identical_with_decay_clipping_accumulation_ema_and_bf16(seed):
    train, freeze = _random_spec(seed)
    mask, _, state, step = _setup(
        train, freeze=freeze, apply=nets.make_apply(jnp.bfloat16), accum_steps=2, average=ema(0.9), clip_norm=0.1
    )
    after, _ = _run(state, step)
    flags = tree.flatten(mask)
    before_flat, after_flat = tree.flatten(PARAMS), tree.flatten(after.params)
    assert before_flat.keys() == after_flat.keys()
    for path, trained in flags.items():
        same = np.array_equal(before_flat[path], after_flat[path])
        assert same is not trained, path
    on = trains(mask)
    for path, value in tree.flatten(after.model_state["batch_stats"]).items():
        module = path.rsplit("/", 1)[0]
        in_train_mode = on is True or on(module)
        assert np.array_equal(value, tree.flatten(STATE["batch_stats"])[path]) is not in_train_mode, path
    trainable, _ = tree.split(PARAMS, mask)
    shapes = sorted(leaf.shape for leaf in jax.tree.leaves(trainable))
    assert sorted(leaf.shape for leaf in jax.tree.leaves(after.ema["params"])) == shapes
    assert {*tree.paths(after.ema.get("model_state", {}))} == {*tree.paths(tree.split(STATE, moving(STATE, on))[0])}
    moments = [leaf.shape for leaf in jax.tree.leaves(after.opt_state) if leaf.ndim]
    assert sorted(moments) == sorted(shapes + shapes)
    params, statistics = eval_weights(after)
    averaged = tree.flatten(params)
    assert all(np.array_equal(averaged[path], before_flat[path]) for path, trained in flags.items() if not trained)
    for path, value in tree.flatten(statistics["batch_stats"]).items():
        if on is not True and not on(path.rsplit("/", 1)[0]):
            np.testing.assert_array_equal(value, tree.flatten(STATE["batch_stats"])[path])


def test_the_clip_factor_and_the_norm_do_not_see_frozen_leaves():
    # A frozen layer with a huge gradient: scaling the frozen stem's input scale changes no trained gradient's norm.
    _, _, state, step = _setup("head", clip_norm=1e-3, name="sgd", momentum=0.0, weight_decay=0.0, lr=1.0, schedule="constant")
    batch = nets.make_batch(0)
    after, metrics = jax.jit(step)(state, batch)
    change = jax.tree.map(jnp.subtract, after.params["head"], PARAMS["head"])
    np.testing.assert_allclose(optax.global_norm(change), 1e-3, rtol=1e-4)

    apply = nets.make_apply()
    rng = jax.random.fold_in(KEY, 0)
    on = trains(make_mask(FreezeSpec.parse("head"), PARAMS, nets.STAGES))

    def mean_loss(params):
        outputs, _ = apply(params, STATE, batch["image"], train=on, rng=rng)
        return losses.softmax_cross_entropy(outputs, batch).mean()

    grads = jax.jit(jax.grad(mean_loss))(PARAMS)
    assert optax.global_norm(grads) > 1.1 * optax.global_norm(grads["head"])
    np.testing.assert_allclose(to_floats(metrics)["grad_norm"], optax.global_norm(grads["head"]), rtol=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_the_optax_masked_road_and_the_partitioned_road_are_bit_equal(name):
    optim = {"name": name, "clip_norm": 0.5, "weight_decay": 0.1}
    mask, tx, state, step = _setup("head,stage2", **optim)
    apply, on = nets.make_apply(), trains(mask)
    masked = freeze_updates(tx, mask)

    def plain_optax_step(params, model_state, opt_state, batch, number):
        rng = jax.random.fold_in(KEY, number)

        def summed_loss(params):
            outputs, new = apply(params, model_state, batch["image"], train=on, rng=rng)
            return losses.softmax_cross_entropy(outputs, batch).sum(), new

        grads, new = jax.grad(summed_loss, has_aux=True)(params)
        grads = jax.tree.map(lambda grad: grad / batch["mask"].sum(), grads)
        updates, opt_state = masked.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), new, opt_state

    params, model_state, opt_state = PARAMS, STATE, masked.init(PARAMS)
    # Operation by operation: compiled as a whole, a sum is rounded by what it is fused with, and the two give out other things.
    with jax.disable_jit():
        for number in range(3):
            batch = nets.make_batch(number)
            params, model_state, opt_state = plain_optax_step(params, model_state, opt_state, batch, number)
            state, _ = step(state, batch)
    for path, leaf in tree.flatten(params).items():
        np.testing.assert_array_equal(leaf, tree.flatten(state.params)[path], err_msg=path)
    for path, leaf in tree.flatten(model_state).items():
        np.testing.assert_array_equal(leaf, tree.flatten(state.model_state)[path], err_msg=path)


def test_accumulation_equals_the_whole_batch_without_batch_norm():
    apply = nets.make_apply(batch_norm=False, dropout=0)
    results = []
    for accum_steps in (1, 2, 4):
        _, _, state, step = _setup("full", apply=apply, accum_steps=accum_steps, name="sgd", lr=0.1)
        results.append(_run(state, step))
    for state, figures in results[1:]:
        for path, leaf in tree.flatten(state.params).items():
            np.testing.assert_allclose(leaf, tree.flatten(results[0][0].params)[path], atol=1e-6)
        for name, value in figures.items():
            np.testing.assert_allclose(value, results[0][1][name], rtol=1e-5)


@pytest.mark.parametrize("accum_steps", [1, 2])
def test_padding_changes_nothing_not_even_with_nan_in_it(accum_steps):
    apply = nets.make_apply(batch_norm=False, dropout=0)
    _, _, state, step = _setup("full", apply=apply, accum_steps=accum_steps, name="sgd", lr=0.1)
    batch = nets.make_batch(0, 6)
    padded = {
        "image": jnp.concatenate([batch["image"], jnp.full((2, 8, 8, 3), 1e30)]),
        "label": jnp.concatenate([batch["label"], jnp.zeros(2, jnp.int32)]),
        "mask": jnp.concatenate([jnp.ones(6), jnp.zeros(2)]),
    }
    one, figures = jax.jit(step)(state, batch)
    other, padded_figures = jax.jit(step)(state, padded)
    for path, leaf in tree.flatten(one.params).items():
        np.testing.assert_allclose(leaf, tree.flatten(other.params)[path], atol=1e-6)
    np.testing.assert_allclose(to_floats(figures)["loss"], to_floats(padded_figures)["loss"], rtol=1e-6)


def test_a_batch_of_padding_only_moves_nothing_and_makes_no_nan():
    apply = nets.make_apply(batch_norm=False)
    _, _, state, step = _setup("full", apply=apply, name="sgd", weight_decay=0.0)
    after, _ = jax.jit(step)(state, {**nets.make_batch(0), "mask": jnp.zeros(8)})
    for path, leaf in tree.flatten(after.params).items():
        np.testing.assert_array_equal(leaf, tree.flatten(PARAMS)[path])


def test_a_batch_without_mask_counts_every_example():
    _, _, state, step = _setup("head")
    batch = nets.make_batch(0)
    one, _ = jax.jit(step)(state, batch)
    other, _ = jax.jit(step)(state, {key: batch[key] for key in ("image", "label")})
    np.testing.assert_allclose(one.params["head"]["kernel"], other.params["head"]["kernel"], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("train", ["full", "head,stage2"])
def test_eight_devices_give_the_parameters_of_one(train):
    _, _, state, step = _setup(train, name="sgd", lr=0.1, apply=nets.make_apply(dropout=0))
    results = []
    for devices in (jax.devices()[:1], jax.devices()):
        mesh = make_mesh(devices=devices)
        placed, jitted = replicate(state, mesh), jax.jit(step)
        for number in range(5):
            placed, _ = jitted(placed, put_batch({k: np.asarray(v) for k, v in nets.make_batch(number, 16).items()}, mesh))
        results.append(placed)
    assert len(results[1].params["head"]["kernel"].sharding.device_set) == 8
    for part in ("params", "model_state"):
        one, eight = (tree.flatten(getattr(result, part)) for result in results)
        for path, leaf in one.items():
            np.testing.assert_allclose(leaf, eight[path], atol=1e-5, err_msg=path)


def test_a_loss_of_the_second_form_sees_parameters_and_runs_further_passes():
    def l2_sp(outputs, batch, *, forward, params):
        again = forward(batch["image"][:, ::-1])
        pull = sum(
            ((leaf - start) ** 2).sum()
            for leaf, start in zip(jax.tree.leaves(params["head"]), jax.tree.leaves(PARAMS["head"]), strict=True)
        )
        return losses.softmax_cross_entropy(outputs, batch) + losses.softmax_cross_entropy(again, batch) + pull

    _, _, state, step = _setup("head", loss=l2_sp)
    _, figures = _run(state, step)
    assert np.isfinite(figures["loss"])
    _, _, state, step = _setup("head")
    assert figures["loss"] > _run(state, step)[1]["loss"]


@pytest.mark.parametrize(("make", "shape"), [(lambda rows: rows.mean(), r"\[\]"), (lambda rows: rows[:, None], r"\[8, 1\]")])
def test_a_loss_of_another_shape_is_a_clear_error(make, shape):
    def my_loss(outputs, batch):
        return make(losses.softmax_cross_entropy(outputs, batch))

    _, _, state, step = _setup("head", loss=my_loss)
    with pytest.raises(JaxftError, match=rf"my_loss returned shape {shape}, expected \[8\]"):
        step(state, nets.make_batch(0))


def test_accumulation_that_does_not_divide_the_batch_is_a_clear_error():
    _, _, state, step = _setup("head", accum_steps=3)
    with pytest.raises(JaxftError, match=r"accum_steps \(3\) does not divide the batch size \(8\)"):
        step(state, nets.make_batch(0))


def test_an_apply_that_loses_statistics_is_a_clear_error():
    def forgetful(params, model_state, image, *, train, rng):
        outputs, new = nets.make_apply()(params, model_state, image, train=train, rng=rng)
        return outputs, {"batch_stats": {"stem": new["batch_stats"]["stem"]}}

    _, _, state, step = _setup("head", apply=forgetful)
    with pytest.raises(JaxftError, match="another model state"):
        step(state, nets.make_batch(0))


@functools.cache
def _resnet_flops(train):
    model = models.build("resnet50", 10, size=64)
    params, model_state = model.shapes
    mask = make_mask(FreezeSpec.parse(train), params, model.stages)
    tx, _ = make_optimizer(params, mask, name="sgd", lr=0.1, total_steps=10)
    state = jax.eval_shape(lambda p, s: create_state(p, s, tx, mask, rng=jax.random.key(0)), params, model_state)
    step = make_train_step(model.apply, losses.softmax_cross_entropy, tx, mask, metrics=METRICS)
    shape = jax.ShapeDtypeStruct
    batch = {"image": shape((2, 64, 64, 3), jnp.float32), "label": shape((2,), jnp.int32)}
    return jax.jit(step).lower(state, batch).compile().cost_analysis()["flops"]


def test_head_only_training_of_resnet50_compiles_to_under_45_percent_of_the_flops():
    assert _resnet_flops("head") < 0.45 * _resnet_flops("full")
