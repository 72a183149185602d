"""Every family against the libraries its weights come from, on the same weights: names and shapes, inference with every stage,
one batch in train mode. Tiny networks; of those in full size, numbers of parameters, names and shapes.

What they compute there stands in fixtures/zoo, written by scripts/make_zoo_fixtures.py.
"""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import originals
import pytest
import seeded

from jaxft import tree
from jaxft.losses import softmax_cross_entropy
from jaxft.models import architecture_of, build, list_models
from jaxft.weights import convert, export
from jaxft.weights.names import conventions, rules

FIXTURES = Path(__file__).parent / "fixtures" / "zoo"
CASES = originals.cases()
FULL = json.loads((FIXTURES / "full.json").read_text())
SINGLE, DOUBLE = 1e-4, 1e-5  # relative; the fixtures hold float32 of float64 gradients


@pytest.fixture(scope="module", autouse=True)
def _quick_compiles():
    """What is compiled here runs once."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def _model(case, dtype="float32"):
    return build(case.architecture, originals.CLASSES, size=case.size, dtype=dtype, **case.options)


@pytest.fixture(scope="module", params=CASES)
def network(request):
    """(case, what the original computed, our table, our variables with the seeded weights)."""
    case, fixture = CASES[request.param], np.load(FIXTURES / f"{request.param}.npz")
    model = _model(case)
    shapes = {name: tuple(shape) for name, shape in json.loads(str(fixture["shapes"])).items()}
    weights, table = seeded.state_dict(1, shapes), rules(model, case.convention)
    return case, fixture, table, weights, convert(weights, table, model.variables).tree


def test_the_state_dict_comes_back_name_by_name_and_bit_for_bit(network):
    _, _, table, weights, variables = network
    wanted = {name: value for name, value in weights.items() if not any(r.dst is None and name in r.sources for r in table)}
    counts = {name: value for name, value in weights.items() if name.endswith("num_batches_tracked")}
    found = export(variables, table)
    assert found.keys() == (wanted | counts).keys()
    for name, value in found.items():
        assert value.shape == weights[name].shape, name
        np.testing.assert_array_equal(value, weights[name], err_msg=name)


def test_logits_and_every_stage_equal_the_originals(network):
    case, fixture, _, _, variables = network
    model, images = _model(case), seeded.images(1, case.batch, case.size)
    state = {key: value for key, value in variables.items() if key != "params"}
    outputs, _ = jax.jit(lambda p, s, x: model.apply(p, s, x))(variables["params"], state, images)
    expected = fixture["logits"]
    assert np.abs(outputs["logits"] - expected).max() <= SINGLE * np.abs(expected).max()
    shapes = json.loads(str(fixture["map_shapes"]))
    assert set(shapes) >= {stage for stage in model.stages if stage.startswith("stage")}
    assert {stage: list(outputs[stage].shape) for stage in shapes} == shapes
    found = originals.digest({stage: outputs[stage] for stage in shapes})
    _assert_close(list(shapes), found, fixture["maps"], [outputs[stage].size for stage in shapes], SINGLE)


def test_a_batch_in_train_mode_equals_the_originals_in_loss_gradients_and_statistics(network):
    case, fixture, table, _, variables = network
    images, labels = seeded.images(1, case.batch, case.size), seeded.labels(1, case.batch, originals.CLASSES)
    with jax.enable_x64(True):
        model = _model(case, "float64")
        variables, images = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (variables, images))
        params, state = variables["params"], {key: value for key, value in variables.items() if key != "params"}

        @jax.jit
        def step(params, state):
            def loss(params):
                outputs, new = model.apply(params, state, images, train=True, rng=jax.random.key(0))
                return softmax_cross_entropy(outputs, {"label": labels}).mean(), new

            return jax.value_and_grad(loss, has_aux=True)(params)

        (loss, new), grads = step(params, state)
        found = export({"params": grads, **new}, table)
    np.testing.assert_allclose(float(loss), fixture["loss"], rtol=DOUBLE)
    names = [name for name in json.loads(str(fixture["grad_names"])) if name in found]
    rows = [row for row, name in enumerate(json.loads(str(fixture["grad_names"]))) if name in found]
    sizes = [found[name].size for name in names]
    _assert_close(names, originals.digest({name: found[name] for name in names}), fixture["grads"][rows], sizes, DOUBLE)
    statistics = [name for name in found if name.endswith(("running_mean", "running_var"))]
    expected = [name for name in json.loads(str(fixture["shapes"])) if name.endswith(("running_mean", "running_var"))]
    assert set(statistics) == set(expected)
    given = originals.digest({name: found[name] for name in expected})
    _assert_close(expected, given, fixture["statistics"], [found[name].size for name in expected], DOUBLE)


def _assert_close(names, found, expected, sizes, tolerance):
    """Norms, and sampled entries by the tensor's root mean square; what is zero but for rounding must be that here too."""
    largest = max(expected[:, 0], default=0)
    for name, ours, theirs, size in zip(names, found, expected, sizes, strict=True):
        norm = max(theirs[0], 1e-9 * largest)
        assert abs(ours[0] - theirs[0]) <= tolerance * norm, f"{name}: norm {ours[0]} against {theirs[0]}"
        error = np.abs(ours[1:] - theirs[1:]).max() / (norm / np.sqrt(size))
        assert error <= 10 * tolerance, f"{name}: entries differ by {error:.1e} of their root mean square"


@functools.cache
def _smallest():
    """The smallest network of each family, and every one that has names nobody else has."""
    found = {}
    for name in list_models():
        counts = [entry["parameters"] for entry in FULL.get(name, {}).values()]
        family = architecture_of(name).family
        if counts and (family not in found or min(counts) < found[family][0]):
            found[family] = min(counts), name
    return [name for _, name in found.values()]


def _assert_full(name):
    model = build(name)
    assert FULL[name].keys() <= set(conventions(model))
    for convention, expected in FULL[name].items():
        empty = tree.map_with_path(lambda _, leaf: np.broadcast_to(np.zeros((), np.float32), leaf.shape), model.variables)
        found = export(empty, rules(model, convention))
        assert originals.names_hash({key: value.shape for key, value in found.items()}) == expected["names"], convention
        assert tree.count(model.variables["params"]) == expected["parameters"]


@pytest.mark.parametrize("name", _smallest())
def test_a_familys_smallest_network_has_the_originals_parameters_names_and_shapes(name):
    _assert_full(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in list_models() if name not in _smallest()])
def test_every_network_has_the_originals_parameters_names_and_shapes(name):
    _assert_full(name)
