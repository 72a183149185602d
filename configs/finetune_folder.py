"""Your own photos: a folder of class folders, a network, and what to train.

    jaxft train --config=configs/finetune_folder.py:path=photos --workdir=runs/photos
    jaxft train --config=configs/finetune_folder.py:path=photos,model=resnet50,train=full --workdir=runs/photos50

    jaxft train --config=configs/finetune_folder.py:path=photos,size=96 --workdir=runs/small    # small pictures, less work

`path` holds either train/, val/ and test/ with a folder a class in each, or the class folders themselves: then a tenth is
split off to validate on and a tenth to test on, and workdir/splits.json says which. `train` is `head`, `full`,
`from:STAGE`, or `head+full` (the default): the head alone first, then everything at a tenth of the rate.

Measured 2026-11-24 on two CPU cores (x86-64, AVX-512), jax 0.10.2, EfficientNet-Lite0, `--config.seed=0`, `1`, `2`, when
mirroring was drawn on the host and JPEGs were decoded in full; not measured again since:

    path=sign-digits,size=96   2,062 photos of hands showing ten digits (ardamavi/Sign-Language-Digits-Dataset), split by us:
                               validation after the head alone 82.8, 83.3, 81.8 %; test (208 photos) 99.5, 99.5, 100.0 %.
                               218 people gave ten photos each, and the split is by photo: the same hands stand on both
                               sides, so a new person's hands will do worse
    path=scene6,size=64        3,600 pictures of six kinds of scenes (ndb796/Scene-Classification-Dataset-Split); it has no
                               test split, so these are figures selection has seen: validation after the head alone 80.2, 82.2,
                               81.8 %, at the end 85.7, 86.0, 86.2 %
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
