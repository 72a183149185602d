"""Further pretraining on pictures without labels, before a fine-tune on the few that have them (docs/self-supervised.md).

    jaxft train --config=configs/pretrain.py:path=pictures --workdir=runs/simclr
    jaxft train --config=configs/pretrain.py:path=pictures,method=dino,model=resnet50 --workdir=runs/dino
    jaxft train --config=configs/pretrain.py:path=pictures,method=mae,model=vit_small_patch16_224 --workdir=runs/mae

    jaxft train --config=configs/finetune_folder.py:path=labelled --config.model.pretrained=run:runs/simclr --workdir=runs/tuned

`path` is any folder of pictures, in class folders or not. `method` is `simclr` (the default), `dino`, or `mae` for Vision
Transformers; `size` is the input in pixels. The fine-tune takes all but the head.
"""

from ml_collections import ConfigDict

from jaxft.config import default_config, phase

VIEWS = "random_resized_crop(0.2), random_flip, random_color(0.4, 0.4, 0.4, 0.1, p=0.8), random_grey(0.2), random_blur(p=0.5)"


def get_config(arg: str = "") -> ConfigDict:
    given = {}
    for part in filter(None, arg.split(",")):
        key, found, value = part.partition("=")
        given.update({key: value} if found else {"path": part})
    if unknown := given.keys() - {"path", "method", "model", "size"}:
        raise ValueError(f"pretrain takes path=, method=, model= and size=, not {sorted(unknown)[0]!r}")
    method = given.get("method", "simclr")
    if method not in ("simclr", "dino", "mae"):
        raise ValueError(f"pretrain takes method=simclr, dino or mae, not {method!r}")
    config = default_config()
    config.data.source = f"folder:{given['path']}" if "path" in given else ""
    config.data.task = "unlabelled"
    config.data.test_fraction = 0.0
    config.model.name = given.get("model", "vit_small_patch16_224" if method == "mae" else "efficientnet_lite0")
    if "size" in given:
        config.model.size = int(given["size"])
    config.input.batch_size = config.input.eval_batch_size = 128
    config.optim.name = "adamw"
    config.optim.weight_decay = 0.05
    config.optim.warmup = "1 epochs"
    config.optim.clip_norm = 1.0
    config.train.monitor, config.train.mode = "loss", "min"
    config.phases = ConfigDict()
    config.phases.phase1 = phase(train="full", length="20 epochs", lr=3e-4)
    if method == "mae":
        config.model.head = "mae:4x256"
        config.loss.name = "masked_autoencoder"
        config.input.augment = "random_resized_crop(0.2), random_flip"
        config.optim.b2 = 0.95
        return config
    config.input.views = 2
    config.input.augment = VIEWS
    config.loss.name = method
    if method == "simclr":
        config.model.head, config.model.outputs = "mlp", 128
    else:
        config.model.head, config.model.outputs = "cosine:256", 1024
        config.train.ema_decay = 0.99
    return config
