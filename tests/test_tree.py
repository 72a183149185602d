import numpy as np
import pytest

from jaxft import tree
from jaxft.errors import JaxftError

TREE = {
    "stem": {"kernel": np.zeros((3, 3)), "bias": np.zeros(3)},
    "fc": {"kernel": np.zeros((3, 2))},
    "fc2": {"w": np.zeros(1)},
}


def test_flatten_and_unflatten_are_inverse():
    assert tree.unflatten(tree.flatten(TREE)) == TREE
    assert tree.paths(TREE) == ["stem/kernel", "stem/bias", "fc/kernel", "fc2/w"]


@pytest.mark.parametrize(
    ("pattern", "path", "named"),
    [
        ("fc", "fc/kernel", True),
        ("fc", "fc2/w", False),
        ("fc*", "fc2/w", True),
        ("**/kernel", "kernel", True),
        ("**/kernel", "a/b/kernel", True),
        ("*/kernel", "a/b/kernel", False),
        ("**", "a/b", True),
        ("a/**/k", "a/k", True),
        ("a/**/k", "a/b/c/k", True),
        ("layer4/*/bn*", "layer4/0/bn1/scale", True),
        ("layer4/*/bn*", "layer4/0/conv1/kernel", False),
        ("a.b", "axb", False),
    ],
)
def test_globs_match_whole_segments(pattern, path, named):
    assert tree.matches(pattern, path) is named


def test_a_pattern_that_matches_nothing_names_what_is_near():
    with pytest.raises(JaxftError, match=r"'fd' matches no parameter .did you mean .*'fc'"):
        tree.find("fd", tree.paths(TREE))


def test_split_and_merge_are_inverse_and_drop_empty_branches():
    mask = tree.map_with_path(lambda path, leaf: path.startswith("fc"), TREE)
    picked, rest = tree.split(TREE, mask)
    assert tree.paths(picked) == ["fc/kernel", "fc2/w"]
    assert list(rest) == ["stem"]
    assert tree.flatten(tree.merge(picked, rest)).keys() == tree.flatten(TREE).keys()


def test_merge_refuses_a_leaf_that_stands_twice():
    with pytest.raises(JaxftError, match="stand in both"):
        tree.merge(TREE, {"fc": {"kernel": np.zeros(1)}})


def test_split_refuses_a_mask_of_another_tree():
    with pytest.raises(JaxftError, match="mask does not fit"):
        tree.split(TREE, {"stem": True})


def test_unflatten_refuses_a_leaf_below_a_leaf():
    with pytest.raises(JaxftError, match="below a leaf"):
        tree.unflatten({"a": 1, "a/b": 2})


def test_diff_tells_missing_unexpected_and_changed_apart():
    other = {
        "stem": {"kernel": np.zeros((3, 4)), "bias": np.zeros(3, np.float16)},
        "fc2": {"w": np.zeros(1)},
        "new": np.zeros(1),
    }
    found = tree.diff(TREE, other)
    assert found.missing == ("fc/kernel",)
    assert found.unexpected == ("new",)
    assert {row[0] for row in found.changed} == {"stem/kernel", "stem/bias"}
    assert "stem/kernel is float64[3,4], not float64[3,3]" in str(found)
    assert not tree.diff(TREE, TREE)
    assert str(tree.diff(TREE, TREE)) == "no difference"


def test_count_and_nbytes():
    assert tree.count(TREE) == 9 + 3 + 6 + 1
    assert tree.nbytes(TREE) == 8 * 19
