"""Overrides on the command line."""

import pytest

from jaxft.cli.config import read_config
from jaxft.errors import JaxftError


@pytest.fixture
def averaged(tmp_path):
    """A recipe that sets keys whose default is None."""
    file = tmp_path / "averaged.py"
    file.write_text(
        "from jaxft.config import default_config\n"
        "def get_config(arg=''):\n"
        "    config = default_config()\n"
        "    config.train.ema_decay, config.data.group, config.phases.phase1.lr = 0.9, 'owner', 0.1\n"
        "    config.phases.phase1.optim.momentum = 0.5\n"
        "    return config\n"
    )
    return str(file)


def test_none_sets_a_key_back_whose_default_it_is(averaged):
    keys = ("train.ema_decay", "data.group", "phases.phase1.lr", "phases.phase1.optim.momentum")
    config = read_config(averaged, [f"--config.{key}=None" for key in keys])
    assert config.train.ema_decay is config.data.group is config.phases.phase1.lr is None
    assert config.phases.phase1.optim.momentum is None
    assert read_config(averaged).train.ema_decay == 0.9


def test_of_two_values_the_last_counts(averaged):
    none, number = "--config.train.ema_decay=None", "--config.train.ema_decay=0.5"
    assert read_config(averaged, [none, number]).train.ema_decay == 0.5
    assert read_config(averaged, [number, none]).train.ema_decay is None


@pytest.mark.parametrize("key", ["input.batch_size", "optim.weight_decay", "train.min_delta"])
def test_none_is_refused_where_a_value_is_needed(averaged, key):
    with pytest.raises(JaxftError, match="None"):
        read_config(averaged, [f"--config.{key}=None"])
