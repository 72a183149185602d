"""The usual rates: each family has one, far enough under its pretraining's, and every optimizer but LARS."""

from pathlib import Path

import pytest

from jaxft.errors import JaxftError
from jaxft.models.registry import _REGISTRY
from jaxft.optim.methods import METHODS
from jaxft.optim.rates import FAMILIES, OPTIMIZERS, default_lr


def test_every_family_and_every_optimizer_but_lars_has_a_rate():
    assert {architecture.family for architecture in _REGISTRY.values()} == FAMILIES.keys()
    assert METHODS.keys() - OPTIMIZERS.keys() == {"lars"}


@pytest.mark.parametrize("family", FAMILIES)
def test_fine_tuning_starts_one_to_two_orders_of_magnitude_under_the_pretraining(family):
    rates = FAMILIES[family]
    tuned = {"sgd": rates.sgd, "adam": rates.adam}[rates.optimizer]
    assert 9.9 <= rates.pretraining / tuned <= 100.1
    assert 30 <= rates.sgd / rates.adam <= 110
    assert default_lr("adamw", family, new=True) == pytest.approx(10 * default_lr("adamw", family, new=False))


def test_rates_of_known_recipes():
    assert default_lr("sgd", "resnet", new=False) == 0.01
    assert default_lr("adamw", "efficientnet_lite", new=True) == 1e-3
    assert default_lr("adamw", "convnext", new=False) == 5e-5
    assert default_lr("lion", "vit", new=False) == 1e-5
    assert default_lr("adamw", "my_own", new=False) == 2e-5


@pytest.mark.parametrize("name", ["lars", "optax:lion"])
def test_an_optimizer_without_a_usual_rate_asks_for_one(name):
    with pytest.raises(JaxftError, match=rf"optimizer '{name}' has no usual learning rate: set lr"):
        default_lr(name, "resnet", new=False)


def test_the_page_has_every_rate_of_the_table():
    page = (Path(__file__).parents[2] / "docs" / "fine-tuning.md").read_text()
    for family, rates in FAMILIES.items():
        kind = {"sgd": "SGD", "adam": "Adam"}[rates.optimizer]
        assert f"| `{family}` | {kind} {rates.pretraining:g} | {rates.sgd:g} | {rates.adam:g} |" in page
    for optimizer, (_, times) in OPTIMIZERS.items():
        assert times == 1 or f"`{optimizer}` {times:g}" in page
