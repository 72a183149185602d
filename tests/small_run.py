"""A recipe with the network of examples/custom_architecture.py, which compiles in a second, on a folder of `tiny_run`."""

import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

RECIPE = """
import sys

sys.path.append("{root}")  # examples/

from ml_collections import ConfigDict
from jaxft.config import default_config, phase

def get_config(arg=""):
    config = default_config()
    config.data.source = "folder:{folder}"
    config.data.val_fraction = 0.2
    config.model.name = "examples.custom_architecture:small"
    config.model.pretrained = ""
    config.model.size = 16
    config.input.batch_size = 8
    config.input.eval_batch_size = 8
    config.input.augment = "random_flip"
    config.input.threads = 1
    config.optim.name = "sgd"
    config.train.eval_every = "2 steps"
    config.train.log_every = "2 steps"
    config.log.tensorboard = False
    config.phases = ConfigDict()
    config.phases.phase1 = phase(train="full", length="8 steps", lr=1e-2)
    return config
"""


def write_small_recipe(file, folder):
    """Returns the path of the recipe; from then on this process finds the examples too."""
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    file.write_text(RECIPE.format(folder=folder, root=ROOT))
    return file


def refuses_another_run(small, config, beside, key, workdir):
    """A run of `config` that was stopped does not go on once another run lies in `beside`, of which it reads by `key`."""
    from jaxft.cli.config import read_config
    from jaxft.errors import JaxftError
    from jaxft.run import train

    config.phases.phase1.length = "4 steps"
    assert train(config, workdir, test=False, go_on=lambda step, figures: False).status == "interrupted"
    shutil.rmtree(beside)
    other = read_config(str(small))
    other.seed, other.phases.phase1.length = 9, "2 steps"
    train(other, beside, test=False)
    with pytest.raises(JaxftError, match=f"{key} is not what it was when step 2 was saved"):
        train(config, workdir, test=False)
