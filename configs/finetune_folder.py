"""Your own photos: a folder of class folders, a network, and what to train.

    jaxft train --config=configs/finetune_folder.py:path=photos --workdir=runs/photos
    jaxft train --config=configs/finetune_folder.py:path=photos,model=resnet50,train=full --workdir=runs/photos50

`path` holds either train/, val/ and test/ with a folder a class in each, or the class folders themselves: then a tenth is
split off to validate on and a tenth to test on, and workdir/splits.json says which. `train` is `head`, `full`,
`from:STAGE`, or `head+full` (the default): the head alone first, then everything at a tenth of the rate.
"""

from ml_collections import ConfigDict

from jaxft.config import default_config, phase


def get_config(arg: str = "") -> ConfigDict:
    given = {}
    for part in filter(None, arg.split(",")):
        key, found, value = part.partition("=")
        given.update({key: value} if found else {"path": part})
    if unknown := given.keys() - {"path", "model", "size", "train"}:
        raise ValueError(f"finetune_folder takes path=, model=, size= and train=, not {sorted(unknown)[0]!r}")
    config = default_config()
    config.data.source = f"folder:{given['path']}" if "path" in given else ""
    config.model.name = given.get("model", "efficientnet_lite0")
    if "size" in given:
        config.model.size = int(given["size"])
    config.input.batch_size = 32
    config.input.augment = "mild_flip"
    config.optim.name = "adamw"
    config.optim.weight_decay = 0.01
    config.optim.warmup = "20 steps"
    config.optim.clip_norm = 1.0
    config.train.patience = 5
    config.phases = ConfigDict()
    if given.get("train", "head+full") == "head+full":
        config.phases.phase1 = phase(train="head", length="3 epochs", lr=3e-3)
        config.phases.phase2 = phase(train="full", length="7 epochs", lr=3e-4)
    else:
        train = given["train"]
        config.phases.phase1 = phase(train=train, length="10 epochs", lr=3e-3 if train == "head" else 3e-4)
    return config
