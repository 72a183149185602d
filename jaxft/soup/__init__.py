"""Weights of several runs in one network: soups, and the way between a network and its fine-tuned self."""

from jaxft.soup.runs import Soup, soup_runs, wise_run
from jaxft.soup.weights import GreedySoup, greedy_soup, interpolate, uniform_soup

__all__ = ["GreedySoup", "Soup", "greedy_soup", "interpolate", "soup_runs", "uniform_soup", "wise_run"]
