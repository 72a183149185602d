"""Optimizers and schedules against torch's own (fixtures) and closed formulas; groups; errors."""

import math
import operator
from pathlib import Path

import jax
import jax.numpy as jnp
import nets
import numpy as np
import optax
import pytest

from jaxft import tree
from jaxft.errors import JaxftError
from jaxft.optim import make_optimizer
from jaxft.optim.methods import METHODS
from jaxft.optim.moments import find
from jaxft.optim.schedules import make_schedule
from jaxft.tuning import FreezeSpec, Group, make_mask

FIXTURES = np.load(Path(__file__).parent / "fixtures" / "optim.npz")
PATHS = [key.split("|")[1] for key in FIXTURES.files if key.startswith("start|")]
START = tree.unflatten({path: FIXTURES[f"start|{path}"] for path in PATHS})
STEPS, KEPT = 30, (1, 2, 10, 30)

SGD = {"name": "sgd", "lr": 0.01, "momentum": 0.9}
ADAMW = {"name": "adamw", "lr": 0.002, "weight_decay": 0.1}
CYCLE = {"schedule": "onecycle", "schedule_options": {"cycle_momentum": True}}
ALL = (Group("all", ("**",)),)
FASTER_HEAD = (
    Group("head bias", ("head/bias",), lr_scale=2, weight_decay=False),
    Group("head", ("head",), lr_scale=2),
    Group("small", ("norm", "**/bias"), weight_decay=False),
    Group("rest", ("**",)),
)
# The same runs as in scripts/make_optim_fixtures.py, in jaxft's words.
RUNS = {
    "sgd": {"name": "sgd", "lr": 0.05, "momentum": 0.0},
    "momentum": SGD,
    "momentum_decay": {**SGD, "weight_decay": 0.1},
    "momentum_decay_all": {**SGD, "weight_decay": 0.1, "groups": ALL},
    "nesterov_decay": {**SGD, "weight_decay": 0.1, "nesterov": True},
    "momentum_groups": {**SGD, "momentum": 0.8, "weight_decay": 0.1, "groups": FASTER_HEAD},
    "momentum_clip": {**SGD, "lr": 0.05, "weight_decay": 0.1, "clip_norm": 0.5},
    "clip_frozen": {**SGD, "lr": 0.05, "clip_norm": 0.5, "train": "head"},
    "adam": {"name": "adam", "lr": 0.002},
    "adam_l2": {"name": "adam", "lr": 0.002, "weight_decay": 0.1},
    "adam_betas": {"name": "adam", "lr": 0.002, "b1": 0.8, "b2": 0.95, "eps": 1e-3},
    "adamw": ADAMW,
    "adamw_all": {**ADAMW, "groups": ALL},
    "adamw_groups": {**ADAMW, "groups": FASTER_HEAD},
    "adamw_clip": {**ADAMW, "clip_norm": 0.5},
    "adamw_cosine": {**ADAMW, "schedule": "cosine"},
    "momentum_onecycle": {"name": "sgd", "lr": 0.05, "weight_decay": 0.1, **CYCLE},
    "nesterov_onecycle_three": {
        "name": "sgd",
        "lr": 0.05,
        "nesterov": True,
        "schedule": "onecycle",
        "schedule_options": {"cycle_momentum": True, "three_phase": True, "pct_start": 0.4, "anneal": "linear"},
    },
    "adam_onecycle": {"name": "adam", "lr": 0.002, **CYCLE},
    "adamw_onecycle": {**ADAMW, **CYCLE},
    "nadam": {"name": "nadam", "lr": 0.002},
    "nadam_l2": {"name": "nadam", "lr": 0.002, "weight_decay": 0.1, "options": {"momentum_decay": 0.05}},
    "nadamw_groups": {**ADAMW, "name": "nadamw", "groups": FASTER_HEAD},
    "adamax": {**ADAMW, "name": "adamax"},
    "rmsprop": {"name": "rmsprop", "lr": 0.002, "eps": 1e-2},
    "rmsprop_momentum": {
        **ADAMW,
        "name": "rmsprop",
        "b2": 0.9,
        "momentum": 0.8,
        "groups": FASTER_HEAD,
        "clip_norm": 0.5,
    },
    "rmsprop_centered": {"name": "rmsprop", "lr": 0.002, "eps": 1e-3, "options": {"centered": True}},
    "adafactor": {"name": "adafactor", "lr": 0.02, "weight_decay": 0.1, "options": {"min_size": 1}},
    "muon_plain": {"name": "muon", "lr": 0.02, "weight_decay": 0.1, "nesterov": False, "train": "stem/kernel"},
    "lamb": {"name": "lamb", "lr": 0.002, "weight_decay": 0.1},
    "lamb_clip_groups": {"name": "lamb", "lr": 0.002, "weight_decay": 0.1, "groups": FASTER_HEAD, "clip_norm": 0.5},
    "lars": {"name": "lars", "lr": 1.0, "weight_decay": 0.1},
    "lars_nesterov": {
        "name": "lars",
        "lr": 1.0,
        "weight_decay": 0.1,
        "nesterov": True,
        "options": {"trust": 0.02},
        "groups": FASTER_HEAD,
    },
    "lion": {"name": "lion", "lr": 0.002, "weight_decay": 0.1, "groups": FASTER_HEAD},
}


def _everything(params, on=True):
    return tree.map_with_path(lambda path, leaf: on, params)


def _follow(tx, params, gradients):
    """Parameters after every step, as a list of trees."""

    @jax.jit
    def step(params, opt_state, gradient):
        updates, opt_state = tx.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    opt_state, found = jax.jit(tx.init)(params), []
    for gradient in gradients:
        params, opt_state = step(params, opt_state, gradient)
        found.append(params)
    return found


def _torch_gradients(params):
    every = tree.map_with_path(lambda path, _: FIXTURES[f"gradients|{path}"], params)
    return [jax.tree.map(operator.itemgetter(step), every) for step in range(STEPS)]


def test_every_run_of_the_fixtures_is_compared():
    assert {key.split("|")[1] for key in FIXTURES.files if key.startswith("run|")} == set(RUNS)


@pytest.mark.parametrize("run", RUNS)
def test_momentum_decay_clipping_and_groups_follow_torch_for_thirty_steps(run):
    settings = {"schedule": "constant", "train": "full", **RUNS[run]}
    stages = {"stem": ("stem", "norm"), "head": ("head",)}
    mask = make_mask(FreezeSpec.parse(settings.pop("train")), START, stages)
    tx, _ = make_optimizer(START, mask, total_steps=STEPS, **settings)
    trainable, _ = tree.split(START, mask)
    found = _follow(tx, trainable, _torch_gradients(trainable))
    # torch orthogonalises in bfloat16; the formula in float64 is compared below.
    rounding = 2e-3 if run == "muon_plain" else 1e-6
    for step, expected in zip(KEPT, FIXTURES[f"run|{run}"], strict=True):
        flat = tree.flatten(found[step - 1])
        ours = np.concatenate([np.ravel(flat[path]) for path in PATHS if path in flat])
        np.testing.assert_allclose(ours, expected, rtol=rounding, atol=rounding, err_msg=f"after {step} steps")


def test_the_schedule_given_back_is_the_one_the_optimizer_follows():
    settings = {"name": "sgd", "momentum": 0.0, "lr": 0.5, "warmup_steps": 3, "total_steps": 9}
    params = {"w": np.zeros(2, np.float32)}
    tx, rate = make_optimizer(params, {"w": True}, **settings)
    found = _follow(tx, params, [{"w": np.ones(2, np.float32)}] * 9)
    made = -np.diff([0.0, *(float(after["w"][0]) for after in found)])
    np.testing.assert_allclose(made, [float(rate(step)) for step in range(9)], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "lion", "nadamw", "muon"])
def test_without_groups_weight_decay_moves_kernels_and_leaves_norms_and_biases(name):
    params, _ = nets.init()
    tx, _ = make_optimizer(params, _everything(params), name=name, lr=0.1, total_steps=2, weight_decay=0.5, schedule="constant")
    zero = jax.tree.map(np.zeros_like, params)
    (after,) = _follow(tx, params, [zero])
    for path, leaf in tree.flatten(after).items():
        before = tree.flatten(params)[path]
        if path.endswith("kernel"):
            # Adam's step has the length of the rate whatever the gradient, the decay's included.
            expected = before - 0.1 * np.sign(before) if name == "adam" else before * (1 - 0.1 * 0.5)
            np.testing.assert_allclose(leaf, expected, atol=1e-5, err_msg=path)
        else:
            np.testing.assert_array_equal(leaf, before, err_msg=path)


@pytest.mark.parametrize("name", [*(name for name, method in METHODS.items() if not method.free), "optax:lion"])
def test_a_groups_lr_scale_multiplies_its_updates_and_no_others(name):
    params, _ = nets.init()
    gradient = jax.tree.map(lambda leaf: leaf + 0.1, params)

    def change(groups):
        settings = {"name": name, "lr": 0.1, "total_steps": 2, "groups": groups, "clip_norm": 1.0}
        tx, _ = make_optimizer(params, _everything(params), **settings)
        return tree.flatten(jax.jit(lambda: tx.update(gradient, tx.init(params), params)[0])())

    plain = change(ALL)
    scaled = change((Group("stem", ("stem",), lr_scale=0.25), Group("head", ("head",), lr_scale=10), Group("rest", ("**",))))
    for path, update in scaled.items():
        factor = {"stem": 0.25, "head": 10}.get(path.split("/")[0], 1)
        np.testing.assert_allclose(update, factor * plain[path], rtol=1e-6, err_msg=path)
        assert np.abs(plain[path]).max() > 0, path


def test_the_state_holds_moments_of_trained_leaves_only():
    params, _ = nets.init()
    mask = make_mask(FreezeSpec.parse("head"), params, nets.STAGES)
    tx, _ = make_optimizer(params, mask, name="adamw", lr=0.1, total_steps=2, weight_decay=0.1)
    state = tx.init(tree.split(params, mask)[0])
    assert sorted(leaf.shape for leaf in jax.tree.leaves(state) if leaf.ndim) == [(4,), (4,), (6, 4), (6, 4)]


def test_the_parameters_may_be_abstract():
    params, _ = nets.init()
    mask = _everything(params)
    abstract = jax.eval_shape(lambda: params)
    gradient = jax.tree.map(lambda leaf: leaf + 0.1, params)
    updates = []
    for given in (params, abstract):
        tx, _ = make_optimizer(given, mask, lr=0.1, total_steps=2, weight_decay=0.1)
        updates.append(jax.jit(lambda tx=tx: tx.update(gradient, tx.init(params), params)[0])())
    assert jax.tree.all(jax.tree.map(np.array_equal, *updates))


def test_an_optax_factory_is_called_with_the_schedule_and_its_options():
    options = {"b1": 0.8, "weight_decay": 0.2}
    settings = {"lr": 0.02, "total_steps": STEPS, "warmup_steps": 5}
    tx, rate = make_optimizer(START, _everything(START), name="optax:lion", options=options, clip_norm=0.5, **settings)
    expected = optax.chain(optax.clip_by_global_norm(0.5), optax.lion(make_schedule(**settings), **options))
    gradients = _torch_gradients(START)
    found = _follow(tx, START, gradients)[-1]
    assert jax.tree.all(jax.tree.map(np.array_equal, found, _follow(expected, START, gradients)[-1]))
    assert float(rate(4)) == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"name": "adamv"},
            r"no optimizer is called 'adamv' .did you mean .*'adamw'.*there are sgd, adam, adamw, .* and 'module:",
        ),
        ({"name": "zzz"}, r"no optimizer is called 'zzz'; there are"),
        (
            {"schedule": "cosin"},
            r"no schedule is called 'cosin' .did you mean 'cosine'.*constant, cosine, .*, onecycle, plateau",
        ),
        ({"lr": 0.0}, r"lr is 0.0: it must be positive"),
        ({"lr": -1e-3}, r"lr is -0.001: it must be positive"),
        ({"lr": math.nan}, r"lr is nan: it must be positive"),
        ({"warmup_steps": 11}, r"warm-up of 11 steps does not fit into 10 steps"),
        ({"warmup_steps": -1}, r"warm-up of -1 steps does not fit"),
        ({"end_lr": 0.2}, r"end_lr is 0.2: it must lie between 0 and lr .0.1."),
        ({"end_lr": -0.1}, r"end_lr is -0.1"),
        ({"schedule": "step"}, r"schedule 'step' needs step_every, e.g. '10 epochs'"),
        ({"schedule": "step", "step_every": 0}, r"needs step_every"),
        ({"name": "sgd", "momentum": 1.0}, r"momentum is 1.0: it must lie in \[0, 1\)"),
        ({"name": "sgd", "momentum": -0.1}, r"momentum is -0.1"),
        ({"weight_decay": -0.1}, r"weight_decay .-0.1. must not be negative"),
        ({"clip_norm": 0.0}, r"clip_norm .0.0. must be positive"),
        ({"name": "lion", **CYCLE}, r"cycle_momentum is for sgd, lars, adam, adamw, lamb, not for optimizer 'lion'"),
        ({"name": "optax:lion", **CYCLE}, r"cycle_momentum does not reach the optimizer 'optax:lion'"),
        ({"b1": 0.8, **CYCLE}, r"b1 is 0.8, and schedule_options.cycle_momentum cycles it"),
        (
            {"schedule": "onecycle", "schedule_options": {"cycle_momentum": True, "base_momentum": 0.99}},
            r"base_momentum .0.99. and max_momentum .0.95. .* in order",
        ),
        ({"options": {"b3": 1}}, r"optimizer 'adamw' has no option 'b3'; it takes none"),
        ({"name": "optax:lion", "options": {"b3": 1}}, r"the optimizer 'optax:lion': .*'b3'"),
        (
            {"name": "optax:lion", "weight_decay": 0.1},
            r"weight_decay does not reach the optimizer 'optax:lion'.*in options",
        ),
        ({"name": "optax:lyon"}, r"the optimizer 'optax:lyon': 'optax' has no 'lyon' .did you mean .*'lion'"),
        ({"name": "no_such_module:lion"}, r"the optimizer 'no_such_module:lion': cannot import 'no_such_module'"),
        ({"name": "optax:__name__"}, r"the optimizer 'optax:__name__' is not a function"),
        ({"groups": (Group("head", ("head",)),)}, r"are in no group, 'stem/kernel' first"),
        ({"groups": (Group("x", ("hed",)), *ALL)}, r"parameter group 'x': pattern 'hed' .*did you mean 'head'"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(settings, message):
    with pytest.raises(JaxftError, match=message) as caught:
        make_optimizer(START, _everything(START), **{"lr": 0.1, "total_steps": 10, **settings})
    assert "\n" not in str(caught.value)


def test_the_length_of_a_mask_and_of_the_parameters_must_agree():
    with pytest.raises(JaxftError, match="mask does not fit"):
        make_optimizer(START, {"head": True}, lr=0.1, total_steps=10)


def _newton_schulz(matrix):
    """Five steps with the coefficients of Jordan et al., 2024, of a matrix that is no taller than wide."""
    x = matrix / (np.linalg.norm(matrix) + 1e-8)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x


def _muon_step(average, gradient, step, b=0.95):
    """The average, and the orthogonal direction: Nesterov's look ahead, each part freed of its bias (float64)."""
    average = b * average + (1 - b) * gradient
    ahead = b * average / (1 - b ** (step + 2)) + (1 - b) * gradient / (1 - b ** (step + 1))
    tall = ahead.shape[0] > ahead.shape[1]
    return average, _newton_schulz(ahead.T).T if tall else _newton_schulz(ahead)


@pytest.mark.parametrize("shape", [(3, 5), (6, 4), (3, 3, 2, 5), (2, 2, 2, 16)])
@pytest.mark.parametrize("rms", [0.2, None])
def test_muon_is_its_formula_in_float64_for_matrices_and_for_kernels_of_convolutions(shape, rms):
    rng = np.random.default_rng(3)
    start, gradients = rng.normal(size=shape), rng.normal(size=(4, *shape))
    inputs, outputs = math.prod(shape[:-1]), shape[-1]
    factor = math.sqrt(max(1, outputs / inputs)) if rms is None else rms * math.sqrt(max(inputs, outputs))
    weights, average = start.reshape(inputs, outputs), np.zeros((inputs, outputs))
    for step, gradient in enumerate(gradients):
        average, direction = _muon_step(average, gradient.reshape(inputs, outputs), step)
        weights = weights - 0.1 * (factor * direction + 0.01 * weights)
    params = {"layer": {"kernel": start.astype(np.float32)}}
    settings = {"name": "muon", "lr": 0.1, "schedule": "constant", "total_steps": 4, "weight_decay": 0.01}
    tx, _ = make_optimizer(params, _everything(params), options={"rms": rms}, **settings)
    found = _follow(tx, params, [{"layer": {"kernel": gradient.astype(np.float32)}} for gradient in gradients])[-1]
    np.testing.assert_allclose(found["layer"]["kernel"], weights.reshape(shape), rtol=1e-4, atol=1e-5)


def test_muon_leaves_to_adam_what_is_no_matrix_the_head_and_what_embeds_the_image():
    rng = np.random.default_rng(0)
    shapes = {
        "patch_embed/kernel": (4, 6),
        "dw/kernel": (3, 3, 1, 4),
        "pos_embed": (1, 4, 6),
        "fc/bias": (6,),
        "head/kernel": (6, 3),
    }
    params = tree.unflatten({path: rng.normal(size=shape).astype(np.float32) for path, shape in shapes.items()})
    gradient = jax.tree.map(lambda leaf: leaf + 1, params)
    found = []
    for name in ("muon", "adamw"):
        tx, _ = make_optimizer(params, _everything(params), name=name, lr=0.1, total_steps=1, head=("head/kernel",))
        found.append(tx.update(gradient, tx.init(params), params)[0])
    jax.tree.map(np.testing.assert_array_equal, *found)
    tx, _ = make_optimizer(params, _everything(params), name="muon", lr=0.1, total_steps=1)  # no head is named
    kernel = tx.update(gradient, tx.init(params), params)[0]["head"]["kernel"]
    assert np.abs(kernel - found[1]["head"]["kernel"]).max() > 1e-3


@pytest.mark.parametrize("name", ["schedule_free_sgd", "schedule_free_adamw"])
def test_schedule_free_optimizers_are_the_papers_formula_in_float64_with_warm_up_decay_and_groups(name):
    """Defazio et al., 2024: z takes the steps, x is its average weighted by the squared rate, gradients are taken at y."""
    lr, decay, b1, b2, steps, warmup = 0.01, 0.1, 0.9, 0.999, 12, 4
    settings = {"name": name, "lr": lr, "schedule": "constant", "warmup_steps": warmup, "weight_decay": decay}
    tx, rate = make_optimizer(START, _everything(START), total_steps=steps, groups=FASTER_HEAD, **settings)
    gradients = _torch_gradients(START)[:steps]
    params, state = START, tx.init(START)
    update = jax.jit(tx.update)
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    (node,) = find(state, optax.contrib.ScheduleFreeState)
    averaged = tree.flatten(optax.contrib.schedule_free_eval_params(node, params))
    for path, start in tree.flatten(START).items():
        y = x = z = np.asarray(start, np.float64)
        square, weights = np.zeros_like(y), 0.0
        decays, scale = path.endswith("kernel"), 2 if path.startswith("head") else 1
        for step in range(steps):
            gradient = np.asarray(FIXTURES[f"gradients|{path}"][step], np.float64)
            pull, now = decay * y if decays else 0.0, lr * min(1.0, (step + 1) / warmup)
            assert float(rate(step)) == pytest.approx(now)
            if name == "schedule_free_sgd":
                direction = gradient + pull
            else:
                square = b2 * square + (1 - b2) * gradient**2
                direction = gradient / (np.sqrt(square / (1 - b2 ** (step + 1))) + 1e-8) + pull
            z = z - now * scale * direction
            weights += now**2
            x = x + now**2 / weights * (z - x)
            y = b1 * x + (1 - b1) * z
        np.testing.assert_allclose(tree.flatten(params)[path], y, rtol=1e-4, atol=1e-5, err_msg=path)
        np.testing.assert_allclose(averaged[path], x, rtol=1e-4, atol=1e-5, err_msg=path)


def test_prodigy_of_optax_runs_by_its_name_and_sets_its_own_rate():
    settings = {"name": "optax.contrib:prodigy", "lr": 1.0, "schedule": "constant", "total_steps": 5}
    tx, _ = make_optimizer(START, _everything(START), **settings)
    found = _follow(tx, START, _torch_gradients(START)[:5])
    moved = [np.abs(found[-1][part]["kernel"] - START[part]["kernel"]).max() for part in ("stem", "head")]
    assert 0 < max(moved) < 1


@pytest.mark.parametrize("name", METHODS)
def test_every_optimizer_steps_down_a_bowl_with_decay_clipping_and_groups(name):
    lr = {"lars": 0.05, "adafactor": 0.3, "schedule_free_sgd": 0.2}.get(name, 0.02)
    settings = {
        "lr": lr,
        "options": {"trust": 1.0} if name == "lars" else None,
        "schedule": "constant",
        "total_steps": 60,
        "weight_decay": 1e-3,
        "clip_norm": 1.0,
    }
    tx, _ = make_optimizer(START, _everything(START), name=name, groups=FASTER_HEAD, **settings)
    height = lambda params: sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))

    def step(carried, _):
        params, state = carried
        updates, state = tx.update(jax.grad(height)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.jit(lambda start: jax.lax.scan(step, (start, tx.init(start)), length=60))(
        jax.tree.map(jnp.asarray, START)
    )
    assert float(height(params)) < 0.5 * float(height(START))
