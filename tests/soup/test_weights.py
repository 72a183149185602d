"""Soups and interpolations of trees, against NumPy's means and the paper's recipe written out."""

import jax
import nets
import numpy as np
import pytest

from jaxft.errors import JaxftError
from jaxft.soup import greedy_soup, interpolate, uniform_soup

TREES = [nets.init(seed) for seed in range(4)]


def _mean(places):
    return [
        np.mean([np.float64(leaf) for leaf in leaves], axis=0)
        for leaves in zip(*(jax.tree.leaves(TREES[i]) for i in places), strict=False)
    ]


def _assert_close(found, expected):
    for one, other in zip(jax.tree.leaves(found), expected, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


def test_a_uniform_soup_is_the_mean_of_every_leaf_and_of_one_tree_that_tree():
    _assert_close(uniform_soup(TREES), _mean(range(4)))
    for one, other in zip(jax.tree.leaves(uniform_soup(TREES[:1])), jax.tree.leaves(TREES[0]), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_an_interpolation_is_exact_at_its_ends_and_linear_between_them(alpha):
    found = interpolate(TREES[0], TREES[1], alpha)
    ends = [jax.tree.leaves(TREES[place]) for place in (0, 1)]
    _assert_close(found, [(1 - alpha) * np.float64(one) + alpha * np.float64(other) for one, other in zip(*ends, strict=True)])
    if alpha in (0, 1):
        assert all(one is other for one, other in zip(jax.tree.leaves(found), ends[int(alpha)], strict=True))


@pytest.mark.parametrize("seed", range(8))
def test_a_greedy_soup_is_recipe_1_of_the_paper(seed):
    rng = np.random.default_rng(seed)
    table = {tuple(sorted(places)): rng.integers(0, 6) / 5 for places in _subsets(4)}  # ties occur
    key = lambda weights: next(
        places
        for places in table
        if all(np.allclose(a, b, atol=1e-6) for a, b in zip(jax.tree.leaves(weights), _mean(places), strict=False))
    )
    found = greedy_soup(TREES, lambda weights: table[key(weights)])
    ingredients = []
    for place in sorted(range(4), key=lambda place: table[(place,)], reverse=True):
        if not ingredients or table[tuple(sorted([*ingredients, place]))] >= table[tuple(sorted(ingredients))]:
            ingredients.append(place)
    assert found.chosen == tuple(ingredients)
    assert found.figure == table[tuple(sorted(ingredients))] >= max(table[(place,)] for place in range(4))
    assert len(found.tried) == 4
    _assert_close(found.weights, _mean(ingredients))


def _subsets(count):
    return [[place for place in range(count) if bits >> place & 1] for bits in range(1, 1 << count)]


def test_figures_that_are_known_are_not_judged_again():
    judged = []
    greedy_soup(TREES[:2], lambda weights: judged.append(weights) or 0.0, figures=[0.5, 0.1])
    assert len(judged) == 1


def test_no_tree_and_other_trees_are_clear_errors():
    for function in (uniform_soup, lambda trees: greedy_soup(trees, lambda _: 0.0)):
        with pytest.raises(JaxftError, match="a soup needs at least one network"):
            function([])
    wide = nets.init(0, channels=(3, 5, 7))
    said = r"weights can be averaged only of one network: .*0/block2/bn/bias is float32\[7\], not float32\[6\]"
    for function in (lambda: uniform_soup([TREES[0], wide]), lambda: interpolate(TREES[0], wide, 0.5)):
        with pytest.raises(JaxftError, match=said):
            function()
