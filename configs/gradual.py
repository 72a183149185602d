"""Gradual unfreezing: the head first, then one stage more at a time, from the last one down, each phase at a lower rate.

    jaxft train --config=configs/gradual.py:path=photos --workdir=runs/gradual
    jaxft train --config=configs/gradual.py:path=photos,model=resnet50 --workdir=runs/gradual50

Howard & Ruder, 2018, for vision: `jaxft.gradual` makes the phases head, from:stage4, from:stage3, full. Moments of the
optimizer and their bias corrections go on for what trains on; what a phase adds begins. Within a phase the rate falls to zero
along a cosine, and each layer has 0.8 of the rate of the next one (`config.optim.layer_decay`).

No figures were measured with this recipe.
"""

from ml_collections import ConfigDict

from jaxft.config import default_config, gradual


def get_config(arg: str = "") -> ConfigDict:
    given = dict(part.partition("=")[::2] for part in arg.split(",") if part)
    if unknown := given.keys() - {"path", "model"}:
        raise ValueError(f"gradual takes path= and model=, not {sorted(unknown)[0]!r}")
    config = default_config()
    config.data.source = f"folder:{given['path']}" if "path" in given else ""
    config.model.name = given.get("model", "resnet18")
    config.input.augment = "mild_flip"
    config.optim.name = "adamw"
    config.optim.weight_decay = 0.01
    config.optim.layer_decay = 0.8
    config.optim.clip_norm = 1.0
    config.phases = gradual(
        ("full", "stage3", "stage4"),
        length=("3 epochs", "2 epochs", "2 epochs", "3 epochs"),
        lr=(1e-3, 3e-4, 2e-4, 1e-4),
    )
    return config
