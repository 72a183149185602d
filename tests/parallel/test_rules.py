"""Which part of each parameter a device holds: the table of rules, and what lies beside the parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxft import tree
from jaxft.errors import JaxftError
from jaxft.models import build, list_models
from jaxft.models.registry import architecture_of
from jaxft.optim import make_optimizer
from jaxft.parallel import (
    ACTIONS,
    DEFAULT_RULES,
    FLOOR,
    Rule,
    make_mesh,
    param_shardings,
    parse_rules,
    put,
    state_shardings,
    unsplit,
)
from jaxft.parallel.rules import spec_of
from jaxft.train import create_state
from jaxft.tuning import FreezeSpec, Group, make_mask

PATHS = [
    "stem/conv/kernel",
    "block1/attn/qkv/kernel",
    "block1/mlp/fc1/kernel",
    "block1/mlp/fc2/kernel",
    "head/kernel",
    "head/bias",
]
LARGE = (256, 512)  # FLOOR elements and more


def parts(spec):
    """A spec as a plain tuple, without what it leaves out at the end."""
    found = list(spec)
    while found and found[-1] is None:
        found.pop()
    return tuple(found)


def given(action, shape, layout, path="a/kernel"):
    return parts(spec_of(path, shape, make_mesh(layout), (Rule("**", action),)))


def test_rules_stand_in_their_order_before_the_default_ones():
    assert parse_rules("", PATHS) == DEFAULT_RULES
    found = parse_rules(" head/** : replicate ,block1/*/fc1:in,, **/kernel:fsdp ", PATHS)
    assert found == (Rule("head/**", "replicate"), Rule("block1/*/fc1", "in"), Rule("**/kernel", "fsdp"), *DEFAULT_RULES)
    assert DEFAULT_RULES[-1] == Rule("**", "fsdp")  # the last matches everything


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("head/**:replicat", "config.parallel.rules has the action 'replicat' (did you mean 'replicate'"),
        ("head/**:fsdb", "config.parallel.rules has the action 'fsdb' (did you mean 'fsdp'"),
        ("head/**:", "config.parallel.rules has the action ''"),
        ("heads/**:fsdp", "config.parallel.rules: pattern 'heads/**' matches no parameter"),
        ("hed:fsdp", "config.parallel.rules: pattern 'hed' matches no parameter (did you mean 'head'"),
        (
            "head:fsdp, block1/mpl:out",
            "config.parallel.rules: pattern 'block1/mpl' matches no parameter (did you mean 'block1/mlp'",
        ),
        ("head", "config.parallel.rules has 'head': a rule is written 'GLOB:ACTION', e.g. 'head/**:replicate'"),
        (":fsdp", "config.parallel.rules has ':fsdp': a rule is written 'GLOB:ACTION'"),
        ("head fsdp", "config.parallel.rules has 'head fsdp': a rule is written 'GLOB:ACTION'"),
        ("he ad:fsdp", "config.parallel.rules has 'he ad:fsdp': a rule is written 'GLOB:ACTION'"),
    ],
)
def test_a_rule_that_cannot_be_is_said_in_one_line_with_what_is_near(text, message):
    with pytest.raises(JaxftError) as raised:
        parse_rules(text, PATHS)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_an_unknown_action_is_told_all_there_are_and_what_they_do():
    with pytest.raises(JaxftError) as raised:
        parse_rules("head:everywhere", PATHS)
    for name, text in ACTIONS.items():
        assert f"{name}: {text}" in str(raised.value)


def test_the_first_rule_that_matches_counts():
    mesh = make_mesh("fsdp=8")
    rules = (Rule("head", "replicate"), Rule("**/kernel", "fsdp"), Rule("**", "replicate"))
    assert parts(spec_of("head/kernel", LARGE, mesh, rules)) == ()
    assert parts(spec_of("stem/kernel", LARGE, mesh, rules)) == (None, "fsdp")
    assert parts(spec_of("stem/embedding", LARGE, mesh, rules)) == ()
    assert parts(spec_of("head/kernel", LARGE, mesh, rules[::-1])) == ()
    assert parts(spec_of("head/kernel", LARGE, mesh, rules[1:])) == (None, "fsdp")


@pytest.mark.parametrize("layout", ["8x1x1", "1x8x1", "2x2x2", "1x1x8"])
def test_what_is_to_be_replicated_is_whole_whatever_its_size(layout):
    assert given("replicate", (4096, 4096), layout) == ()


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((256, 512), (None, "fsdp")),  # the longest
        ((512, 256), ("fsdp",)),
        ((256, 256), (None, "fsdp")),  # of equal ones the last
        ((3, 3, 64, 64), (None, None, None, "fsdp")),
        ((3, 3, 128, 64), (None, None, "fsdp")),
        ((2048, 10), ("fsdp",)),
        ((100, 1000), (None, "fsdp")),
        ((1001, 96), (None, "fsdp")),  # the longest does not divide: the next
        ((1001, 8, 12), (None, "fsdp")),
        ((1 << 20,), ("fsdp",)),
        ((197, 193), ()),  # nothing divides: whole
        ((12345, 7), ()),
    ],
)
def test_fsdp_splits_the_longest_dimension_that_divides(shape, spec):
    assert given("fsdp", shape, "1x8x1") == spec
    assert given("fsdp", shape, "8x1x1") == ()  # with one part there is nothing to split
    assert given("fsdp", shape, "4x1x2") == ()


def test_small_parameters_stay_whole_under_every_rule():
    assert FLOOR == 16384
    for action in ACTIONS:
        assert given(action, (128, 127), "2x2x2") == ()
        assert given(action, (FLOOR - 1,), "2x2x2") == ()
        assert given(action, (), "2x2x2") == ()
    assert given("fsdp", (128, 128), "2x2x2") == (None, "fsdp")
    assert given("fsdp", (FLOOR,), "2x2x2") == ("fsdp",)


@pytest.mark.parametrize(
    ("action", "shape", "layout", "spec"),
    [
        ("out", (256, 512), "2x2x2", ("fsdp", "tensor")),
        ("in", (512, 256), "2x2x2", ("tensor", "fsdp")),
        ("out", (256, 512), "4x1x2", (None, "tensor")),
        ("in", (512, 256), "4x1x2", ("tensor",)),
        ("out", (256, 512), "1x8x1", (None, "fsdp")),  # without `tensor` as any other
        ("in", (512, 256), "1x8x1", ("fsdp",)),
        ("out", (256, 512), "8x1x1", ()),
        ("out", (3, 3, 64, 128), "2x2x2", (None, None, "fsdp", "tensor")),
        ("in", (3, 3, 128, 64), "2x2x2", (None, None, "tensor", "fsdp")),
        ("out", (256, 513), "2x2x2", ("fsdp",)),  # outputs do not divide: only fsdp
        ("out", (256, 511), "1x1x8", ()),
        ("in", (513, 256), "2x2x2", (None, "fsdp")),
        ("out", (255, 512), "2x2x2", (None, "tensor")),  # nothing else divides: only tensor
        ("in", (512, 255), "2x2x2", ("tensor",)),
        ("out", (1 << 20,), "2x2x2", ("tensor",)),  # a vector of outputs is split with them
        ("in", (1 << 20,), "2x2x2", ("fsdp",)),  # a vector has no inputs: it comes after the sum
        ("in", (1 << 20,), "4x1x2", ()),
    ],
)
def test_pairs_are_split_over_tensor_by_outputs_and_inputs_and_over_fsdp_along_another_dimension(action, shape, layout, spec):
    assert given(action, shape, layout) == spec


def test_an_mlp_split_along_its_hidden_channels_needs_no_more_than_a_sum():
    # Megatron's pair: each device has a part of the hidden channels, out of fc1 and into fc2.
    model = build("vit_tiny_patch16_224", 10, size=32)
    params, mesh = model.shapes[0], make_mesh("1x1x2", jax.devices()[:2])
    placed = {path: parts(place.spec) for path, place in tree.flatten(param_shardings(params, mesh)).items()}
    for name, spec in (("qkv", (None, "tensor")), ("attn/proj", ("tensor",)), ("fc1", (None, "tensor")), ("fc2", ("tensor",))):
        kernels = [found for path, found in placed.items() if path.endswith(f"{name}/kernel")]
        assert kernels == [spec] * 12, name
    others = {
        found for path, found in placed.items() if not any(f"/{name}/" in path for name in ("qkv", "attn/proj", "fc1", "fc2"))
    }
    assert others == {()}

    rng = np.random.default_rng(0)
    shapes = {"fc1/kernel": (192, 768), "fc2/kernel": (768, 192)}
    values = tree.unflatten({path: rng.normal(size=shape).astype(np.float32) for path, shape in shapes.items()})
    placed = put(values, param_shardings(values, mesh))
    x = jnp.asarray(rng.normal(size=(4, 192)), jnp.float32)

    def mlp(params, x):
        return jax.nn.gelu(x @ params["fc1"]["kernel"]) @ params["fc2"]["kernel"]

    compiled = jax.jit(mlp, out_shardings=param_shardings({"y": x}, mesh)["y"]).lower(placed, x).compile()
    text = compiled.as_text()
    assert text.count(" all-reduce(") + text.count(" all-reduce-start(") == 1
    assert not any(name in text for name in ("all-gather", "all-to-all", "collective-permute", "reduce-scatter"))
    np.testing.assert_allclose(compiled(placed, x), mlp(values, x), rtol=1e-4, atol=1e-3)


PARAMS = {
    "stem": {"kernel": jax.ShapeDtypeStruct((7, 7, 3, 128), jnp.float32)},
    "fc1": {"kernel": jax.ShapeDtypeStruct((256, 512), jnp.float32), "bias": jax.ShapeDtypeStruct((512,), jnp.float32)},
    "fc2": {"kernel": jax.ShapeDtypeStruct((512, 256), jnp.float32), "bias": jax.ShapeDtypeStruct((256,), jnp.float32)},
    "head": {"kernel": jax.ShapeDtypeStruct((256, 128), jnp.float32), "bias": jax.ShapeDtypeStruct((128,), jnp.float32)},
}


def test_what_a_mask_says_stays_whole_whatever_the_rules_say():
    mesh = make_mesh("2x2x2")
    free = {path: parts(place.spec) for path, place in tree.flatten(param_shardings(PARAMS, mesh)).items()}
    assert free == {
        "stem/kernel": (None, None, None, "fsdp"),
        "fc1/kernel": ("fsdp", "tensor"),
        "fc1/bias": (),
        "fc2/kernel": ("tensor", "fsdp"),
        "fc2/bias": (),
        "head/kernel": ("fsdp",),
        "head/bias": (),
    }
    whole = tree.map_with_path(lambda path, _: path.startswith(("stem", "fc1")), PARAMS)
    kept = {path: parts(place.spec) for path, place in tree.flatten(param_shardings(PARAMS, mesh, whole=whole)).items()}
    assert kept == {path: () if path.startswith(("stem", "fc1")) else spec for path, spec in free.items()}


def test_part_of_the_tree_lies_as_it_does_in_the_whole():
    mesh, mask = make_mesh("2x2x2"), tree.map_with_path(lambda path, _: path.startswith("fc"), PARAMS)
    whole = tree.flatten(param_shardings(PARAMS, mesh))
    for part in tree.split(PARAMS, mask):
        found = tree.flatten(param_shardings(part, mesh))
        assert found == {path: whole[path] for path in found}


def optimizers():
    """(name, transform, of): the optimizers of the library, with one group and with several."""
    spec = FreezeSpec.parse("stem,fc1,head")
    mask = make_mask(spec, PARAMS, ())
    groups = (Group("slow", ("stem",), 0.1), Group("fast", ("head",), 2.0, 0.0), Group("rest", ("**",)))
    shared = {"lr": 0.1, "total_steps": 10, "clip_norm": 1.0, "weight_decay": 0.1}
    for name, more in (("adamw", None), ("adamw", groups), ("sgd", groups)):
        tx, _ = make_optimizer(PARAMS, mask, name=name, groups=more, **shared)
        yield f"{name}{' of several groups' if more else ''}", tx, mask
    yield "adafactor", optax.adafactor(0.1, min_dim_size_to_factor=128), mask


@pytest.mark.parametrize(("name", "tx", "mask"), list(optimizers()), ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("layout", ["1x8x1", "2x2x2"])
def test_moments_and_averages_lie_as_their_parameter_and_clocks_are_whole(name, tx, mask, layout):
    mesh = make_mesh(layout)
    places = param_shardings(PARAMS, mesh)
    state = jax.eval_shape(lambda params: create_state(params, {}, tx, mask, rng=jax.random.key(0), ema=True), PARAMS)
    state = state.replace(model_state={"batch_stats": {"bn": {"mean": jax.ShapeDtypeStruct((1 << 15,), jnp.float32)}}})
    found = state_shardings(state, places, mesh)
    assert jax.tree.structure(found) == jax.tree.structure(state)
    assert dict(found.params) == places
    flat, own = tree.flatten(places), tree.flatten(PARAMS)
    trained = [path for path, chosen in tree.flatten(mask).items() if chosen]
    assert tree.flatten(found.ema["params"]) == {path: flat[path] for path in trained}
    for leaf in (found.step, found.rng, *jax.tree.leaves(found.model_state)):
        assert leaf.is_fully_replicated

    moments = []
    shapes = jax.tree_util.tree_leaves_with_path(state.opt_state)
    for (path, leaf), place in zip(shapes, jax.tree.leaves(found.opt_state), strict=True):
        text = jax.tree_util.keystr(path, simple=True, separator="/")
        parameter = next((name for name in trained if text.endswith("/" + name)), None)
        if parameter is not None and leaf.shape == own[parameter].shape:
            assert place == flat[parameter], text
            moments.append(parameter)
        else:  # clocks, and moments that are factored
            assert place.is_fully_replicated, text
            assert parameter is not None or leaf.shape == (), text
    expected = {"adamw": 2, "sgd": 1}.get(name.split()[0])
    if expected is not None:
        assert sorted(moments) == sorted(expected * trained)
    assert any(len(set(jax.tree.leaves(places[part]["kernel"].spec))) for part in ("stem", "fc1", "head"))


def test_a_parameter_whose_path_ends_as_anothers_does_not_take_its_place():
    # `head/kernel` is the end of `aux/head/kernel` too.
    params = {"aux": {"head": {"kernel": jax.ShapeDtypeStruct((512, 256), jnp.float32)}}, "head": PARAMS["head"]}
    mesh = make_mesh("fsdp=8")
    places = param_shardings(params, mesh)
    assert (parts(places["aux"]["head"]["kernel"].spec), parts(places["head"]["kernel"].spec)) == (("fsdp",), ("fsdp",))
    same = {"aux": {"head": {"kernel": PARAMS["head"]["kernel"]}}, "head": PARAMS["head"]}
    rules = (Rule("aux", "replicate"), *DEFAULT_RULES)
    for tried in (params, same):
        mask = jax.tree.map(lambda _: True, tried)
        state = jax.eval_shape(
            lambda params, mask=mask: create_state(params, {}, optax.adam(0.1), mask, rng=jax.random.key(0), ema=True), tried
        )
        places = param_shardings(tried, mesh, rules)
        found = state_shardings(state, places, mesh)
        assert found.opt_state[0].mu == places
        assert found.opt_state[0].nu == places
        assert found.ema == {"params": places}
        assert places["aux"]["head"]["kernel"].is_fully_replicated
        assert not places["head"]["kernel"].is_fully_replicated


def test_unsplit_names_what_is_large_and_whole_under_fsdp_only():
    params = {**PARAMS, "odd": {"kernel": jax.ShapeDtypeStruct((197, 193), jnp.float32)}}
    for layout, expected in (("1x8x1", ["odd/kernel"]), ("2x2x2", ["odd/kernel"]), ("8x1x1", []), ("4x1x2", [])):
        mesh = make_mesh(layout)
        assert unsplit(params, param_shardings(params, mesh)) == expected
    mesh = make_mesh("1x8x1")
    rules = parse_rules("head/**:replicate", tree.paths(params))
    assert unsplit(params, param_shardings(params, mesh, rules)) == ["head/kernel", "odd/kernel"]


# Of these more stays whole: their widths are no multiples of 8, one is odd (RegNetY-256GF: 373 times 2, 4, 11, 28).
ODD = {"regnety_2560"}


def families():
    found = {}
    for name in list_models():
        found.setdefault(architecture_of(name).family, []).append(name)
    return found


@functools.cache
def large_and_whole(name, parts):
    params, _ = build(name, 10).shapes
    return unsplit(params, param_shardings(params, make_mesh(f"fsdp={parts}", jax.devices()[:parts])))


@pytest.mark.parametrize("name", [min(names, key=lambda name: (name in ODD, len(name), name)) for names in families().values()])
def test_of_one_network_of_each_family_no_large_parameter_stays_whole(name):
    assert large_and_whole(name, 8) == []


@pytest.mark.slow
@pytest.mark.parametrize("names", families().values(), ids=families())
def test_of_no_network_a_large_parameter_stays_whole(names):
    assert {name: large_and_whole(name, 8) for name in names if name not in ODD} == {
        name: [] for name in names if name not in ODD
    }
    for name in ODD & set(names):
        shapes = {path: leaf.shape for path, leaf in tree.flatten(build(name, 10).shapes[0]).items()}
        whole = large_and_whole(name, 2)
        assert [path for path in whole if not {373, 11 * 373} & {*shapes[path]}] == []
        assert len(whole) < len(large_and_whole(name, 8)) < sum(np.prod(shape) >= FLOOR for shape in shapes.values())
