"""VGG-16 on CIFAR-10, as in the classic transfer-learning exercise: SGD 1e-3, momentum 0.9, weight decay 5e-4, 10 epochs.

    jaxft train --config=configs/vgg16_cifar10.py --workdir=runs/vgg16              # only the new head is trained
    jaxft train --config=configs/vgg16_cifar10.py:full --workdir=runs/vgg16_full    # everything is trained

The head is `classifier.6` (4096 -> 10) alone. A tenth of the training data is split off to validate on; the test set is
touched once, at the end. CIFAR-10 is read as array_record from tensorflow-datasets' folder; preparing it there once needs
TensorFlow (`pip install 'jaxft[tf]'`). A folder of class folders does as well: `--config.data.source=folder:PATH`.

Not yet measured: torchvision's weights and the CIFAR-10 archive are on the internet, which the machines that measure do not
reach.
"""

from ml_collections import ConfigDict

from jaxft.config import default_config, phase


def get_config(arg: str = "head") -> ConfigDict:
    trains = {"head": "head", "frozen": "head", "full": "full"}
    if arg not in trains:
        raise ValueError(f"vgg16_cifar10 takes 'head' (backbone frozen) or 'full', not '{arg}'")
    config = default_config()
    config.model.name = "vgg16"
    config.data.source = "tfds:cifar10"
    config.input.batch_size = 64
    config.input.augment = "crop_flip"
    config.optim.name = "sgd"
    config.optim.lr = 1e-3
    config.optim.momentum = 0.9
    config.optim.weight_decay = 5e-4
    config.optim.decay_norms_and_biases = True
    config.optim.schedule = "constant"
    config.phases.phase1 = phase(train=trains[arg], length="10 epochs")
    return config
