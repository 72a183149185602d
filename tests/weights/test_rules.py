"""Conversion by rules: total, both ways, or one error that says all that does not fit."""

import jax
import numpy as np
import originals
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxft import tree
from jaxft.errors import JaxftError
from jaxft.models import architecture_of, build, list_models
from jaxft.weights import CONV, DENSE, IDENTITY, Rule, convert, export, flatten_chw, names
from jaxft.weights.rules import Op, destinations

RULES = (
    Rule("stem.weight", "params/stem/kernel", CONV),
    Rule("block{n}.fc.weight", "params/block/{n}/kernel", DENSE),
    Rule("block{n}.fc.bias", "params/block/{n}/bias"),
    Rule("bn.running_mean", "batch_stats/bn/mean"),
    Rule("bn.running_var", "batch_stats/bn/var"),
    Rule("{any}.num_batches_tracked", None),
)


def leaf(*shape):
    return jax.ShapeDtypeStruct(shape, np.float32)


@pytest.fixture
def target():
    return {
        "params": {"stem": {"kernel": leaf(3, 3, 2, 4)}, "block": {"0": {"kernel": leaf(5, 6), "bias": leaf(6)}}},
        "batch_stats": {"bn": {"mean": leaf(4), "var": leaf(4)}},
    }


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)
    shapes = {
        "stem.weight": (4, 2, 3, 3),
        "block0.fc.weight": (6, 5),
        "block0.fc.bias": (6,),
        "bn.running_mean": (4,),
        "bn.running_var": (4,),
    }
    found = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return {**found, "bn.num_batches_tracked": np.asarray(5)}


@given(st.lists(st.integers(1, 4), min_size=4, max_size=4))
@settings(max_examples=20, deadline=None)
def test_each_op_is_undone_by_its_inverse(sides):
    o, i, h, w = sides
    rng = np.random.default_rng(0)
    kinds = [(IDENTITY, (o,)), (CONV, (o, i, h, w)), (DENSE, (o, i)), (flatten_chw(i, h, w), (o, i * h * w))]
    for op, shape in kinds:
        x = rng.standard_normal(shape)
        np.testing.assert_array_equal(op.inverse(op.forward(x)), x)


def test_a_dense_layer_on_a_flattened_map_gives_the_same_for_both_layouts():
    channels, height, width = 3, 2, 5
    rng = np.random.default_rng(0)
    image = rng.standard_normal((channels, height, width))
    weight = rng.standard_normal((4, channels * height * width))
    kernel = flatten_chw(channels, height, width).forward(weight)
    np.testing.assert_allclose(image.transpose(1, 2, 0).reshape(-1) @ kernel, weight @ image.reshape(-1), rtol=1e-12)


def test_all_tensors_find_their_leaf(tensors, target):
    found = convert(tensors, RULES, target)
    assert found.ignored == ("bn.num_batches_tracked",)
    assert found.new == ()
    assert tree.flatten(found.tree).keys() == tree.flatten(target).keys()
    kernel = found.tree["params"]["stem"]["kernel"]
    np.testing.assert_array_equal(kernel[2, 1, 0, 3], tensors["stem.weight"][3, 0, 2, 1])
    assert kernel.flags.c_contiguous


def test_the_first_matching_rule_counts(tensors, target):
    other = (Rule("bn.running_{which}", None), *RULES)
    with pytest.raises(JaxftError, match=r"2 missing \(batch_stats/bn/mean, batch_stats/bn/var\)"):
        convert(tensors, other, target)


def test_all_mismatches_stand_in_one_line(tensors, target):
    tensors["block0.fc.bias"] = np.zeros(7, np.float32)
    tensors["block1.fc.bias"] = np.zeros(7, np.float32)
    tensors["extra"] = np.zeros(1, np.float32)
    del tensors["stem.weight"]
    with pytest.raises(JaxftError) as caught:
        convert(tensors, RULES, target)
    assert str(caught.value) == (
        "the weights are not of this network: "
        "1 do not fit (params/block/0/bias is [7], not [6]); "
        "1 missing (params/stem/kernel); "
        "2 unexpected (block1.fc.bias (for params/block/1/bias), extra)"
    )


def test_a_long_diff_is_shortened(target):
    tensors = {f"strange{number}": np.zeros(1, np.float32) for number in range(50)}
    with pytest.raises(JaxftError, match=r"50 unexpected \(strange0, .*, strange3, and 46 more\)"):
        convert(tensors, RULES, target)


def test_a_leaf_filled_twice_is_an_error(tensors, target):
    rules = (*RULES, Rule("other.mean", "batch_stats/bn/mean"))
    with pytest.raises(JaxftError, match=r"batch_stats/bn/mean is filled twice, by other\.mean too"):
        convert({**tensors, "other.mean": np.zeros(4, np.float32)}, rules, target)


@pytest.mark.parametrize("wrong", [np.zeros(24), np.zeros((4, 2, 9)), np.zeros((2, 2, 2, 2, 2))])
def test_a_tensor_of_other_dimensions_is_an_error_not_a_crash(wrong, tensors, target):
    with pytest.raises(JaxftError, match="1 do not fit"):
        convert({**tensors, "stem.weight": wrong.astype(np.float32)}, RULES, target)


@pytest.mark.parametrize("dtype", ["int64", "bool", "complex64"])
def test_weights_that_are_no_floats_are_an_error(dtype, tensors, target):
    with pytest.raises(JaxftError, match=f"params/block/0/bias is {dtype}, not float32"):
        convert({**tensors, "block0.fc.bias": np.zeros(6, dtype)}, RULES, target)


def test_half_precision_weights_become_float32(tensors, target):
    half = {name: value.astype(np.float16) if value.ndim else value for name, value in tensors.items()}
    assert {leaf.dtype for leaf in tree.flatten(convert(half, RULES, target).tree).values()} == {np.dtype("f4")}


def test_new_leaves_are_left_out_and_what_the_source_has_for_them_is_ignored(tensors, target):
    tensors["block0.fc.weight"] = np.zeros((100, 5), np.float32)
    del tensors["block0.fc.bias"]
    found = convert(tensors, RULES, target, new=["params/block/0"])
    assert found.new == ("params/block/0/bias", "params/block/0/kernel")
    assert "block0.fc.weight" in found.ignored
    assert "block" not in found.tree["params"]


def test_names_are_ignored_by_name_and_by_glob(tensors, target):
    more = {**tensors, "aux.conv.weight": np.zeros(1), "aux.fc.bias": np.zeros(1), "extra": np.zeros(1)}
    found = convert(more, RULES, target, ignore=["aux.*", "extra"])
    assert set(found.ignored) == {"aux.conv.weight", "aux.fc.bias", "extra", "bn.num_batches_tracked"}
    with pytest.raises(JaxftError, match="2 unexpected"):
        convert(more, RULES, target, ignore=["extra"])


def test_export_is_the_inverse_and_counts_no_batches(tensors, target):
    found = export(convert(tensors, RULES, target).tree, RULES)
    assert found.keys() == tensors.keys()
    for name, value in found.items():
        assert value.dtype == (np.int64 if name == "bn.num_batches_tracked" else np.float32)
        np.testing.assert_array_equal(value, 0 if name == "bn.num_batches_tracked" else tensors[name])


def test_a_leaf_without_a_rule_cannot_be_exported():
    with pytest.raises(JaxftError, match="no rule gives 'params/strange' a name"):
        export({"params": {"strange": np.zeros(1)}}, RULES)


CASES = [(name, convention) for name in originals.smallest() for convention in names.conventions(build(name))]


def _without_layout(rule):
    """A leaf goes to each of its foreign names as it is."""
    parts = len(rule.sources)
    return Rule(rule.src, rule.dst, Op("same", lambda *x: x[0], lambda x: (x,) * parts if parts > 1 else x))


@pytest.mark.parametrize(("name", "convention"), CASES)
def test_every_leaf_of_a_familys_smallest_network_has_one_name_in_every_convention(name, convention):
    model = build(name)
    # Names and shapes only: a VGG has half a gigabyte of weights.
    rules = [_without_layout(rule) for rule in names.rules(model, convention)]
    leaves = tree.flatten(model.variables)
    named = export(tree.unflatten({path: np.asarray(number) for number, path in enumerate(leaves)}), rules)
    counted = {key: value for key, value in named.items() if not key.endswith("num_batches_tracked")}
    back = destinations(counted, rules)
    assert set(back.values()) == set(leaves)
    assert {back[key]: int(value) for key, value in counted.items()} == {path: n for n, path in enumerate(leaves)}


@pytest.mark.parametrize(("name", "convention"), [("efficientnet_lite0", "timm"), ("efficientnet_lite2", "lukemelas")])
def test_a_network_goes_to_other_names_and_back_bit_for_bit(name, convention, seeded):
    _, variables = seeded(name)
    rules = names.rules(build(name), convention)
    back = convert(export(variables, rules), rules, variables)
    for path, value in tree.flatten(back.tree).items():
        np.testing.assert_array_equal(value, tree.flatten(variables)[path])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet50", ("torchvision", "timm", "transformers")),
        ("resnext50_32x4d", ("torchvision", "timm")),
        ("resnet50d", ("timm",)),
        ("convnext_tiny", ("timm", "torchvision", "transformers", "keras", "keras3")),
        ("convnextv2_tiny", ("timm", "transformers")),
        ("convnext_nano_ols", ("timm",)),
        ("efficientnet_b0", ("timm", "torchvision")),
        ("tf_efficientnet_b0", ("timm", "transformers")),
    ],
)
def test_a_network_has_the_names_of_those_who_have_the_network(name, expected):
    assert names.conventions(build(name)) == expected


def test_an_unknown_convention_is_said_with_the_known_ones():
    with pytest.raises(
        JaxftError, match=r"no names of 'torchvison' \(did you mean 'torchvision'\?\); it has torchvision, timm"
    ):
        names.rules(build("resnet18"), "torchvison")


def test_what_libraries_call_our_networks_is_said_of_networks_that_there_are():
    """RegNet's table once named its stages."""
    for family, module in names._FAMILIES.items():
        own = {name for name in list_models() if architecture_of(name).family == family}
        for library, known in module.ORIGINALS.items():
            assert known.keys() <= own, (family, library)
            assert known
