"""Weights of several networks in one, as pure functions on trees of arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxft import tree
from jaxft.errors import JaxftError


def interpolate(start: Any, end: Any, alpha: float) -> Any:
    """`(1 - alpha) * start + alpha * end`, leaf by leaf; at 0 and 1 exactly one of them.

    WiSE-FT (Wortsman et al., Robust fine-tuning of zero-shot models, 2022) where `start` is the network before fine-tuning and
    `end` the fine-tuned one.

    Args:
      start, end: trees of the same paths and shapes.
      alpha: between 0 and 1; beyond it is an extrapolation.

    Raises:
      JaxftError: other paths or shapes.
    """
    _check_alike([start, end])
    if alpha in (0, 1):
        return end if alpha else start
    return jax.tree.map(lambda one, other: ((1 - alpha) * one + alpha * other).astype(one.dtype), start, end)


def uniform_soup(trees: Sequence[Any]) -> Any:
    """The mean of trees of the same paths and shapes, leaf by leaf (Wortsman et al., Model soups, 2022).

    Raises:
      JaxftError: no tree, or other paths or shapes.
    """
    if not trees:
        raise JaxftError("a soup needs at least one network")
    _check_alike(trees)
    return jax.tree.map(lambda *leaves: (sum(leaves[1:], leaves[0]) / len(leaves)).astype(leaves[0].dtype), *trees)


@dataclasses.dataclass(frozen=True)
class GreedySoup:
    """A greedy soup.

    Attributes:
      weights: the mean of the chosen trees.
      chosen: their positions, in the order they were added.
      figure: of the soup.
      tried: (position, figure of the soup with it) of each tree, in the order they were tried.
    """

    weights: Any
    chosen: tuple[int, ...]
    figure: float
    tried: tuple[tuple[int, float], ...]


def greedy_soup(trees: Sequence[Any], judge: Callable[[Any], float], figures: Sequence[float] | None = None) -> GreedySoup:
    """Adds one tree after the other to a uniform soup, the best first, where the figure does not fall by it.

    Recipe 1 of Wortsman et al., Model soups, 2022. Figures are to be of validation data.

    Args:
      trees: of the same paths and shapes.
      judge: the figure of a tree; more is better.
      figures: of each tree alone; None judges them.

    Raises:
      JaxftError: no tree, or other paths or shapes.
    """
    if not trees:
        raise JaxftError("a soup needs at least one network")
    _check_alike(trees)
    figures = [judge(one) for one in trees] if figures is None else figures
    first, *others = sorted(range(len(trees)), key=lambda place: -figures[place])
    chosen, figure, weights = [first], figures[first], trees[first]
    tried = [(first, figure)]
    for place in others:
        candidate = uniform_soup([trees[index] for index in (*chosen, place)])
        found = judge(candidate)
        tried.append((place, found))
        if found >= figure:
            chosen, figure, weights = [*chosen, place], found, candidate
    return GreedySoup(weights, tuple(chosen), figure, tuple(tried))


def _check_alike(trees: Sequence[Any]) -> None:
    first, *others = (
        {
            jax.tree_util.keystr(path, simple=True, separator="/"): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(one)
        }
        for one in trees
    )
    for other in others:
        if differs := tree.diff(jax.tree.map(jnp.asarray, first), jax.tree.map(jnp.asarray, other)):
            raise JaxftError(f"weights can be averaged only of one network: {differs}")
