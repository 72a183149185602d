"""VGG. Theirs have dense layers of fixed width and, in torchvision, a fixed map before them: narrow ones are put there."""

from jaxft.models import vgg
from originals import CLASSES, Case, bgr

WIDTHS, DENSE = (8, 12, 16, 16, 24), 32


def _layers(depths):
    """theirs: channels of every convolution, "M" for pooling."""
    return [entry for depth, width in zip(depths, WIDTHS, strict=True) for entry in [*[width] * depth, "M"]]


def _torchvision(depths, batch_norm):
    def make(lib):
        models, linear = lib.torchvision.models.vgg, lib.torch.nn.Linear
        features = models.make_layers(_layers(depths), batch_norm)
        with lib.torch.device("meta"):  # 120 million weights that nobody needs
            network = models.VGG(lib.torch.nn.Identity(), num_classes=CLASSES, init_weights=False, dropout=0.0)
        network.features = features
        sizes = {0: (WIDTHS[-1] * 7 * 7, DENSE), 3: (DENSE, DENSE), 6: (DENSE, CLASSES)}
        for index, shape in sizes.items():
            network.classifier[index] = linear(*shape)
        return network

    return make


def _timm(depths):
    def make(lib):
        models, linear = lib.timm.models.vgg, lib.torch.nn.Linear
        network = models.VGG(_layers(depths), num_classes=CLASSES, mlp_ratio=1 / 4096)
        network.pre_logits = models.ConvMlp(WIDTHS[-1], DENSE, 7, drop_rate=0.0)
        network.head.fc = linear(DENSE, CLASSES)
        return network

    return make


def _case(name, depths, batch_norm, theirs, convention="torchvision", size=64):
    config = vgg.Config(depths, batch_norm, WIDTHS, DENSE)
    after = 2 if batch_norm else 1  # the ReLU's index, counted from the convolution's; the pooling is next
    stages = {f"stage{i}": f"features.{block[-1][0] + after + 1}" for i, block in enumerate(config.convolutions(), start=1)}
    architecture = vgg.architecture(config)
    return Case(f"vgg_{name}", architecture, convention, theirs, stages, options={"dropout": 0.0}, size=size)


def _keras(lib):
    """Its own VGG16, made anew of narrow layers."""

    def narrow(layer):
        config = layer.get_config()
        if "filters" in config:
            config["filters"] = WIDTHS[int(layer.name[len("block")]) - 1]
        elif layer.name in ("fc1", "fc2"):
            config["units"] = DENSE
        return type(layer).from_config(config)

    network = lib.keras.applications.VGG16(weights=None, classes=CLASSES, classifier_activation=None)
    return lib.keras.models.clone_model(network, clone_function=narrow)


KERAS = vgg.Config((2, 2, 3, 3, 3), False, WIDTHS, DENSE)
CASES = (
    _case("plain", (1, 1, 2, 1, 1), False, _torchvision((1, 1, 2, 1, 1), False)),
    _case("bn", (1, 1, 1, 1, 2), True, _torchvision((1, 1, 1, 1, 2), True)),
    # The last map is 1x1.
    _case("timm", (1, 1, 1, 1, 1), False, _timm((1, 1, 1, 1, 1)), "timm", size=32),
    # Its dense layers are for maps of 7x7 pixels.
    Case(
        "vgg_keras",
        vgg.architecture(KERAS),
        "keras",
        _keras,
        {f"stage{i}": f"block{i}_pool" for i in range(1, 6)},
        options={"dropout": 0.0},
        size=224,
        batch=1,
        pixels=bgr,
    ),
)
