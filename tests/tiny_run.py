"""A tiny folder of pictures and a recipe that trains on it in seconds, with everything random switched on."""

import numpy as np
from PIL import Image

RECIPE = """
from ml_collections import ConfigDict
from jaxft.config import default_config, phase

def get_config(arg=""):
    config = default_config()
    config.data.source = "folder:{folder}"
    config.model.name = "resnet10t"
    config.model.pretrained = ""
    config.model.size = 32
    config.model.drop_path = 0.1
    config.input.batch_size = 16
    config.input.eval_batch_size = 8
    config.input.threads = 2
    config.optim.clip_norm = 1.0
    config.optim.weight_decay = 0.01
    config.train.log_every = "2 steps"
    config.train.eval_every = "3 steps"
    config.train.ema_decay = 0.9
    config.train.accum_steps = 2
    config.log.tensorboard = False
    config.phases = ConfigDict()
    config.phases.phase1 = phase(train="head", length="2 steps", lr=1e-2)
    config.phases.phase2 = phase(train="from:stage4", length="4 steps", lr=1e-2, name="sgd")
    return config
"""


def draw_folder(root, classes=("circle", "cross", "dots"), per_class=10, size=40):
    """Class folders of small noisy pictures whose mean colour tells the class."""
    rng = np.random.default_rng(7)
    for index, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = rng.integers(0, 120, (size, size + number, 3), dtype=np.uint8)
            pixels[..., index % 3] += 100
            Image.fromarray(pixels).save(root / name / f"{number:03d}.png")
    return root


def write_recipe(file, folder):
    """A recipe that trains on the pictures of `folder`; returns its path."""
    file.write_text(RECIPE.format(folder=folder))
    return file
